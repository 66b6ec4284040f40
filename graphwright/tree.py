"""A run as a live tree of its nodes, for a terminal: status, attempt, time, and what they say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

_ICONS: Mapping[str, tuple[str, str]] = {
    "pending": ("·", "dim"),
    "running": ("●", "cyan"),
    "retrying": ("↻", "yellow"),
    "waiting": ("◷", "blue"),
    "succeeded": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "skipped": ("↷", "dim"),
    "cancelled": ("■", "yellow"),
}
_ACTIVE = {"running", "retrying", "waiting"}
_ENDED = {"succeeded", "failed", "skipped", "cancelled"}
_AROUND = 4  # lines of the terminal that are not the tree's
_DETAIL = 80  # characters


@dataclass(slots=True)
class _Node:
    needs: Sequence[str]
    status: str = "pending"
    attempt: int = 0
    began: datetime | None = None
    ended: datetime | None = None
    says: str = ""


class RunTree:
    """The state of a run as its events tell it; Rich draws it anew whenever it likes.

    ``needs`` has each node's direct predecessors. A node stands below the last of them, for each
    one is shown once. Where the terminal is too low for all, those under way or failed are shown.
    """

    def __init__(self, title: str, needs: Mapping[str, Sequence[str]]) -> None:
        self._title = title
        self._nodes = {name: _Node(before) for name, before in needs.items()}
        self._status = "queued"

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take an event in."""
        kind, _, what = str(event["type"]).partition(".")
        if kind == "run":
            self._status = _RUN.get(what, what)
            if self._status == "cancelled":
                self._end_all()
            return
        name, at = event.get("node"), datetime.fromisoformat(str(event["at"]))
        if name is None or event.get("item") is not None:
            return
        node = self._nodes.setdefault(str(name), _Node(()))
        data: Mapping[str, Any] = event.get("data") or {}
        match what:
            case "started":
                node.status, node.attempt, node.says = "running", event["attempt"], ""
                node.began = node.began or at
            case "log":
                node.says = _line(data.get("message"))
            case "retrying" | "waiting":
                node.status = what
                node.says = _fault(data) or node.says
            case "succeeded" | "failed" | "skipped":
                node.status, node.ended = what, at
                node.attempt = max(node.attempt, event["attempt"]) if what != "skipped" else 0
                node.says = _fault(data)
            case _:
                pass

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = (options.height or console.height) - _AROUND
        now = datetime.now(UTC)
        yield self._tree(now) if len(self._nodes) <= room else self._list(now, room)
        yield self._foot()

    def _tree(self, now: datetime) -> Tree:
        root = Tree(Text(self._title, "bold"), guide_style="dim")
        shown: dict[str, Tree] = {}
        left = dict(self._nodes)
        while left:
            # A node that needs one that is not there, which cannot be, would stand at the root.
            ready = [
                name for name, node in left.items() if not any(each in left for each in node.needs)
            ] or list(left)
            for name in ready:
                node = left.pop(name)
                below = shown.get(node.needs[-1], root) if node.needs else root
                shown[name] = below.add(self._label(name, node, now))
        return root

    def _list(self, now: datetime, room: int) -> Tree:
        root = Tree(Text(self._title, "bold"), guide_style="dim")
        told = [
            (name, node)
            for name, node in self._nodes.items()
            if node.status in _ACTIVE or node.status == "failed"
        ]
        for name, node in told[: room - 1]:
            root.add(self._label(name, node, now))
        if len(told) > room - 1:
            root.add(Text(f"… and {len(told) - room + 1} more", "dim"))
        return root

    def _label(self, name: str, node: _Node, now: datetime) -> Text:
        icon, style = _ICONS.get(node.status, ("?", ""))
        text = Text.assemble((f"{icon} ", style), (name, style if node.status == "failed" else ""))
        if node.began is not None:
            seconds = ((node.ended or now) - node.began).total_seconds()
            text.append(f"  {_duration(seconds)}", "dim")
        if node.status in {"retrying", "waiting", "skipped", "cancelled"}:
            text.append(f"  {node.status}", style)
        if node.attempt > 1:
            text.append(f"  attempt {node.attempt}", "yellow")
        if len(node.needs) > 1:
            text.append(f"  ← {', '.join(node.needs)}", "dim")
        if node.says:
            text.append(f"  {node.says}", "dim" if node.status != "failed" else "red")
        text.no_wrap, text.overflow = True, "ellipsis"
        return text

    def _foot(self) -> Table:
        ended = sum(node.status in _ENDED for node in self._nodes.values())
        failed = sum(node.status == "failed" for node in self._nodes.values())
        total = len(self._nodes)
        foot = Table.grid(padding=(0, 2))
        words = Text(f"{self._status}  {ended}/{total} nodes")
        if failed:
            words.append(f", {failed} failed", "red")
        foot.add_row(ProgressBar(total or 1, ended, width=24), words)
        return foot

    def _end_all(self) -> None:
        for node in self._nodes.values():
            if node.status not in _ENDED:
                node.status = "cancelled"


_RUN: Mapping[str, str] = {"started": "running", "resumed": "running"}


def _fault(data: Mapping[str, Any]) -> str:
    error: Mapping[str, Any] = data.get("error") or {}
    return _line(error.get("message"))


def _line(text: object) -> str:
    return " ".join(str(text).split())[:_DETAIL] if text else ""


def _duration(seconds: float) -> str:
    seconds = max(seconds, 0.0)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return (
        f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
    )
