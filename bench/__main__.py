"""``python -m bench [NAME…]``: run the benchmarks of this folder, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def main() -> int:
    known = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
    asked = sys.argv[1:] or known
    unknown = sorted(set(asked) - set(known))
    if unknown or not known:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(known) or 'none yet'}")
        return 2 if unknown else 0
    worst = 0
    for name in asked:
        print(f"== {name}", flush=True)
        worst = max(worst, subprocess.call([sys.executable, "-m", f"bench.{name}"]))
    return worst


if __name__ == "__main__":
    sys.exit(main())
