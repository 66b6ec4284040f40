"""What people read: progress, notes and errors on stderr, so that stdout carries data alone."""

import json
import sys
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from foundation.errors import Fault, GraphwrightError, Invalid, TooLarge, Unavailable

DONE, FAILED, USAGE, UNREACHABLE = range(4)
_ROLE_COLOURS = ("cyan", "magenta", "blue", "yellow", "green", "bright_red")


class Terminal:
    """One process's stdout and stderr."""

    def __init__(self) -> None:
        self.json = False
        """Whether ``--json`` was given: what a program reads, for people too."""
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)
        self._out = Console(highlight=False)
        self._colours: dict[str, str] = {}

    @property
    def for_people(self) -> bool:
        """Whether a person reads stdout, and has not asked for JSON."""
        return sys.stdout.isatty() and not self.json

    def note(self, markup: str) -> None:
        """A line of Rich markup on stderr."""
        self.err.print(markup)

    def show(self, markup: str) -> None:
        """A line of Rich markup on stdout, for people."""
        self._out.print(markup, soft_wrap=True)

    def role_line(self, role: str, line: str) -> None:
        """A line of a supervised process, behind its role."""
        colour = self._colours.setdefault(role, _ROLE_COLOURS[len(self._colours) % 6])
        # Its own escape sequences are kept; nothing in it is markup.
        self.err.print(f"[{colour}]{role:>8}[/] [dim]│[/] ", end="")
        self.err.file.write(f"{line}\n")
        self.err.file.flush()

    @contextmanager
    def step(self, what: str) -> Generator[None]:
        """Say what begins, and at its end how long it took."""
        began = time.monotonic()
        self.note(f"[dim]…[/] {what}")
        yield
        self.note(f"[green]✓[/] {what} [dim]{time.monotonic() - began:.1f} s[/]")

    def data(self, value: object) -> None:
        """A value as JSON on stdout: one line, or laid out when a person reads it."""
        if self.for_people:
            self._out.print_json(json.dumps(value, ensure_ascii=False))
        else:
            print(json.dumps(value, ensure_ascii=False), flush=True)  # noqa: T201

    def rows(self, items: Iterable[Mapping[str, Any]], columns: tuple[str, ...]) -> None:
        """A table when a person reads stdout, else one JSON object a line."""
        if not self.for_people:
            for item in items:
                self.data(item)
            return
        table = Table(*columns, box=None, header_style="bold", pad_edge=False)
        for item in items:
            table.add_row(*(escape(_cell(item.get(column))) for column in columns))
        self._out.print(table)

    def error(self, error: GraphwrightError) -> None:
        if self.json:
            self.err.print(json.dumps(_told(error), ensure_ascii=False), markup=False)
            return
        self.err.print("[bold red]error:[/] ", end="")
        self.err.print(error.message, markup=False)
        if isinstance(error, Invalid):
            self.faults(error.faults)
        if error.hint:
            self.err.print(f"  {error.hint}", markup=False)

    def faults(self, faults: Iterable[Fault], source: str = "") -> None:
        """Each fault on a line: ``source:pointer: code message (hint)``."""
        for fault in faults:
            where = f"{source}:{fault.pointer}" if source else fault.pointer
            hint = f" ({fault.hint})" if fault.hint else ""
            self.err.print(f"{where}: {fault.code} {fault.message}{hint}", markup=False)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def _told(error: GraphwrightError) -> dict[str, Any]:
    faults = [fault.as_dict() for fault in error.faults] if isinstance(error, Invalid) else []
    told = {"code": error.code, "message": error.message, "hint": error.hint}
    return {**told, **error.ids, **({"errors": faults} if faults else {})}


def exit_code(error: GraphwrightError) -> int:
    """interface.md's meaning of an error: 1 failed, 2 invalid input, 3 unreachable."""
    if isinstance(error, (Invalid, TooLarge)):
        return USAGE
    return UNREACHABLE if isinstance(error, Unavailable) else FAILED
