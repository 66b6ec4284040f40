"""What the command line makes of the API's JSON for people: lines of Rich markup."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.markup import escape

from graphwright.client.types import Diff, Run

_SIGNS: Mapping[str, str] = {
    "add": "[green]+[/]",
    "remove": "[red]-[/]",
    "replace": "[yellow]~[/]",
    "move": "[yellow]>[/]",
    "copy": "[green]+[/]",
}
_STYLES: Mapping[str, str] = {
    "succeeded": "bold green",
    "failed": "bold red",
    "cancelled": "bold yellow",
}
_CHARACTERS = 2_000


def diff_lines(diff: Diff) -> Iterator[str]:
    """A line for the nodes, then one for each change."""
    nodes = diff["nodes"]
    counts = ", ".join(
        f"{len(names)} {how} ({escape(', '.join(names))})"
        for how, names in (
            ("added", nodes["added"]),
            ("removed", nodes["removed"]),
            ("changed", nodes["changed"]),
        )
        if names
    )
    yield f"[bold]{diff['from']} → {diff['to']}[/]  nodes: {counts or 'the same'}"
    for change in diff["patch"]:
        sign = _SIGNS.get(change["op"], escape(change["op"]))
        value = change["from"] if "from" in change else change.get("value")
        told = "" if value is None else f"  {escape(short(value))}"
        yield f"{sign} {escape(change['path'])}{told}"


def ended_lines(run: Run) -> Iterator[str]:
    """How a run ended: its status, why, and what it gave."""
    status = run["status"]
    yield f"[{_STYLES.get(status, 'bold')}]{status}[/]  {run['run_id']}"
    error = run["error"]
    if error is not None:
        where = f" in {error['node']}" if error.get("node") else ""
        yield f"[red]{escape(str(error['code']))}{escape(where)}:[/] {escape(error['message'])}"
        if error.get("hint"):
            yield f"  {escape(error['hint'])}"
    if run["outputs"] is not None:
        yield escape(short(run["outputs"]))


def short(value: Any) -> str:
    """As JSON, of bounded length."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]}…"
