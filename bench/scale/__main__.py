"""``python -m bench.scale [measure]``: simulate, show, and write the numbers of docs/scale.md."""

import sys

from bench.scale import costs
from bench.scale.page import PAGE, TABLES, filled, told


def main() -> int:
    match sys.argv[1:]:
        case []:
            pass
        case ["measure"]:
            from bench.scale.measuring import measure

            costs.write(measure())
        case _:
            print("usage: python -m bench.scale [measure]", file=sys.stderr)
            return 2
    found = costs.read()
    page = told(PAGE.read_text(), found)
    for name, made in TABLES.items():
        text = made(found)
        print(f"\n{text}")
        page = filled(page, name, text)
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
