"""A run's events as a person reads them: one line each, and a count for runs of many nodes."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, cast

from rich.markup import escape

_COMPACT_FROM = 25  # nodes; above, a line each would hide everything else
_STEPS = 10
_STYLES: Mapping[str, str] = {
    "node.succeeded": "green",
    "node.failed": "bold red",
    "node.retrying": "yellow",
    "node.skipped": "dim",
    "run.succeeded": "bold green",
    "run.failed": "bold red",
    "run.cancelled": "bold yellow",
}
_LEVELS: Mapping[str, str] = {
    "debug": "dim",
    "warning": "yellow",
    "error": "red",
    "critical": "bold red",
}
_HIDDEN = {"node.output"}  # its data is large, and node.succeeded follows
_ENDED = {"node.succeeded", "node.failed", "node.skipped"}


class EventPrinter:
    """Shows events as they come; ``nodes`` is how many the run has, ``show`` takes Rich markup."""

    def __init__(self, nodes: int, show: Callable[[str], None]) -> None:
        self._nodes = nodes
        self._show = show
        self._ended = 0

    def __call__(self, event: Mapping[str, Any]) -> None:
        kind = str(event["type"])
        if self._nodes > _COMPACT_FROM and kind.startswith("node."):
            self._count(kind, event)
        elif kind not in _HIDDEN:
            self._show(line(event))

    def _count(self, kind: str, event: Mapping[str, Any]) -> None:
        if kind in {"node.failed", "node.retrying"}:
            self._show(line(event))
        if kind not in _ENDED:
            return
        before, self._ended = self._ended, self._ended + 1
        if before * _STEPS // self._nodes != self._ended * _STEPS // self._nodes:
            self._show(f"{_time(event)}  {self._ended} of {self._nodes} nodes ended")


def line(event: Mapping[str, Any]) -> str:
    """One event as one line of Rich markup."""
    kind, node = str(event["type"]), event.get("node")
    style = _STYLES.get(kind, "default")
    words = [_time(event), f"[{style}]{kind:<15}[/]"]
    if node:
        words.append(f"[bold]{escape(str(node))}[/]")
    if (event.get("attempt") or 1) > 1:
        words.append(f"attempt {event['attempt']}")
    detail = _detail(event.get("data"))
    if detail:
        words.append(f"[dim]{escape(detail)}[/]")
    return "  ".join(words)


def log_line(event: Mapping[str, Any]) -> str:
    """A ``node.log`` as one line of Rich markup."""
    data = event["data"]
    style = _LEVELS.get(data["level"], "default")
    node, message = escape(str(event["node"])), escape(str(data["message"]))
    return f"{_time(event)}  [{style}]{data['level']:<8}[/] [bold]{node}[/]  {message}"


def _time(event: Mapping[str, Any]) -> str:
    return datetime.fromisoformat(str(event["at"])).astimezone().strftime("%H:%M:%S.%f")[:-3]


def _detail(data: object) -> str:
    """What went wrong or was logged, on one line of bounded length."""
    if not isinstance(data, dict):
        return ""
    given = cast("dict[str, object]", data)
    found = given.get("message") or given.get("error")
    if isinstance(found, dict):
        found = cast("dict[str, object]", found).get("message")
    return " ".join(str(found).split())[:200] if found else ""
