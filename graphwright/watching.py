"""Following a run on the terminal: a live tree for people, the events as JSON for programs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from foundation.errors import NotFound
from graphwright.client import Client
from graphwright.client.types import Event, Run
from graphwright.terminal import DONE, FAILED, Terminal


def watch(terminal: Terminal, client: Client, run_id: str, after: str | None = None) -> int:
    """Show a run to its end, and how it ended; the exit code.

    A program gets the events on stdout, one JSON object a line, and last the run.
    """
    events = client.runs.events(run_id, after=after)
    if not terminal.for_people:
        for event in events:
            terminal.data(event)
        run = client.runs.get(run_id)
        terminal.data(run)
        return _code(run)
    if terminal.err.is_terminal and not terminal.err.is_dumb_terminal:
        _draw(terminal, client, client.runs.get(run_id), events)
    else:
        from graphwright.live import EventPrinter

        printer = EventPrinter(len(client.runs.get(run_id)["nodes"]), terminal.note)
        for event in events:
            printer(event)
    from graphwright.showing import ended_lines

    run = client.runs.get(run_id)
    for line in ended_lines(run):
        terminal.show(line)
    return _code(run)


def needs_of(client: Client, run: Run) -> Mapping[str, Sequence[str]]:
    """Each node's direct predecessors, from the version that runs."""
    try:
        document = client.graphs.version(run["graph_id"], run["version"])["document"]
    except NotFound:  # deleted meanwhile
        document = {}
    nodes = cast("Mapping[str, Mapping[str, Sequence[str]]]", document.get("nodes", {}))
    return {name: list(nodes.get(name, {}).get("needs", ())) for name in run["nodes"]}


def _draw(terminal: Terminal, client: Client, run: Run, events: Iterator[Event]) -> None:
    from rich.live import Live

    from graphwright.tree import RunTree

    title = f"{run['graph']} version {run['version']}  {run['run_id']}"
    tree = RunTree(title, needs_of(client, run))
    with Live(tree, console=terminal.err, refresh_per_second=10):
        for event in events:
            tree(event)


def _code(run: Run) -> int:
    return DONE if run["status"] == "succeeded" else FAILED
