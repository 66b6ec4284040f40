"""``make bench``: ask the questions, show the answers, keep them, and write the page of them."""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from bench.engines.peers import NODE_PEERS, PEERS, PYTHON_PEERS
from bench.support import report, services, table
from bench.support.machine import ROOT, busy_cores, commit, this_machine
from bench.support.processes import Processes
from bench.support.question import ORDER, Answer, load
from bench.support.report import Report, Result, result_of
from bench.support.site import Site, one_line, say

_QUIET_CORES = 0.2
_EPILOG = f"""\
Questions: {", ".join(ORDER)}.

Each peer is installed once, at a pinned version, in an environment of its own below
~/.cache/graphwright-bench. Results go to {report.LATEST.relative_to(ROOT)}, beside those of
other questions if commit and machine are the same, and {table.PAGE.relative_to(ROOT)} is
written from them. Databases are temporary, in TMPDIR, which must be on a disk.

`python -m bench.expressions` compares CEL libraries, and keeps no results.
"""


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """``only``: names of questions, in order; ``peers``: names of peers. Exits with 2 on others."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure Graphwright, and its peers on the same work in the same run.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "only", nargs="*", metavar="QUESTION", help="ask these only; separated by spaces or commas"
    )
    parser.add_argument(
        "--peers",
        default="python",
        metavar="PEERS",
        help=f"python (default): {', '.join(PYTHON_PEERS)}; all: also those that need Node.js, "
        f"{', '.join(NODE_PEERS)}; none; or names, separated by commas",
    )
    found = parser.parse_args(given)
    asked = [name for part in found.only for name in part.replace(",", " ").split()]
    if unknown := sorted(set(asked) - set(ORDER)):
        parser.error(f"no question {', '.join(unknown)}; there are: {', '.join(ORDER)}")
    found.only = [name for name in ORDER if name in asked] or list(ORDER)
    groups = {"python": PYTHON_PEERS, "all": PEERS, "none": ()}
    found.peers = groups.get(found.peers, tuple(found.peers.split(",")))
    if unknown := sorted(set(found.peers) - set(PEERS)):
        parser.error(f"no peer {', '.join(unknown)}; there are: {', '.join(PEERS)}")
    return found


def main() -> int:
    asked = arguments(sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    began = time.monotonic()
    try:
        new = _measure(asked.only, asked.peers)
    except KeyboardInterrupt:
        say("interrupted; everything that was started has been stopped")
        return 130
    whole, said = report.merged(new, report.read())
    report.write(whole)
    table.write_page(whole)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table.terminal_table(new.results))
    console.print(f"{new.machine.cpu}, {new.machine.cores} cores; {new.machine.postgres}")
    console.print(f"commit {new.commit}; {time.monotonic() - began:.0f} s. {said}")
    failed = [result.question for result in new.results if result.failed]
    return 1 if failed else 0


def _measure(questions: Sequence[str], peers: Sequence[str]) -> Report:
    measured = commit()  # before anybody goes on editing
    if (busy := busy_cores()) > _QUIET_CORES:
        say(f"other programs keep {busy:.1f} cores busy: figures and ratios will be off")
    with tempfile.TemporaryDirectory(prefix="gw-bench-") as name:
        folder = Path(name)
        with services.running(folder / "servers") as servers:
            machine = this_machine(folder, servers.postgres)
            say(f"{servers.postgres}, on {machine.disk}")
            (folder / "logs").mkdir()
            processes = Processes(folder / "logs")
            try:
                site = Site(folder, servers, processes, peers)
                results = [_ask(name, site) for name in questions]
                return Report(
                    machine=machine,
                    commit=measured,
                    measured_on=datetime.now(UTC).date(),
                    engines=site.how,
                    results=results,
                )
            finally:
                processes.close()


def _ask(name: str, site: Site) -> Result:
    say(f"== {name}")
    began = time.monotonic()
    question = load(name)
    answer: Answer | str
    try:
        answer = question.measure(site)
    except Exception as error:  # the other questions are still worth asking
        answer = one_line(error)
        say(f"  failed: {answer}")
    say(f"  {time.monotonic() - began:.0f} s")
    return result_of(name, question, answer)


if __name__ == "__main__":
    sys.exit(main())
