"""A JSON value with expressions in it, taken apart once so that evaluating it is cheap."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from foundation.errors import Fault
from graph_defs.cel import scan as cel_scan
from graph_defs.cel.faults import CompileFault
from graph_defs.cel.program import Program
from graph_defs.cel.scan import ScanFault, Source
from graph_defs.json_values import Json, Path, pointer

_ESCAPE_HINT = "Write $${{ for the characters ${{ themselves."


@dataclass(frozen=True, slots=True)
class Slot:
    """One expression, and the JSON Pointer of the string that it is in."""

    program: Program
    pointer: str


@dataclass(frozen=True, slots=True)
class Literal:
    value: Json


@dataclass(frozen=True, slots=True)
class Text:
    """A string in which expressions are interpolated."""

    parts: tuple[str | Slot, ...]


@dataclass(frozen=True, slots=True)
class Array:
    items: tuple["Part", ...]


@dataclass(frozen=True, slots=True)
class Object:
    """``members`` are keys (a string, or what makes one) and values."""

    members: tuple[tuple["Part", "Part"], ...]


Part = Literal | Slot | Text | Array | Object


@dataclass(frozen=True, slots=True)
class Template:
    """A JSON value whose expressions are compiled.

    ``references`` are the ids of the nodes that they read of, ``secrets`` the names of the secrets,
    ``roots`` are ``params``, ``nodes``, ``run``, ``trigger`` and ``secrets`` as far as they read
    them, ``faults`` what does not compile, with pointers below the value. It can be evaluated if
    there are none.
    """

    part: Part
    references: frozenset[str]
    secrets: frozenset[str]
    roots: frozenset[str]
    faults: tuple[Fault, ...]

    @property
    def is_literal(self) -> bool:
        """Whether there is no expression in it."""
        return isinstance(self.part, Literal) and not self.faults

    @property
    def is_one_expression(self) -> bool:
        """Whether it is nothing but one expression, whose value it takes."""
        return isinstance(self.part, Slot)


class TemplateParser:
    """Takes one JSON value apart. ``program_of`` compiles a source or raises `CompileFault`."""

    def __init__(
        self, program_of: Callable[[str], Program], max_length: int, max_depth: int
    ) -> None:
        self._program_of = program_of
        self._max_length = max_length
        self._max_depth = max_depth
        self._faults: list[Fault] = []
        self._references: set[str] = set()
        self._secrets: set[str] = set()
        self._roots: set[str] = set()

    def parse(self, value: Json) -> Template:
        part = self._part(value, ())
        return Template(
            part,
            frozenset(self._references),
            frozenset(self._secrets),
            frozenset(self._roots),
            tuple(self._faults),
        )

    def _part(self, value: Json, path: Path) -> Part:
        if isinstance(value, str):
            return self._string(value, pointer(path))
        if not isinstance(value, list | dict):
            return Literal(value)
        if len(path) >= self._max_depth:
            message = f"Objects and arrays are nested more than {self._max_depth} deep."
            self._faults.append(Fault(pointer(path), "too_deep", message, "Flatten the value."))
            return Literal(None)
        if isinstance(value, list):
            items = tuple(self._part(each, (*path, index)) for index, each in enumerate(value))
            plain = [each.value for each in items if isinstance(each, Literal)]
            return Literal(plain) if len(plain) == len(items) else Array(items)
        members = tuple(
            (self._string(key, pointer((*path, key))), self._part(each, (*path, key)))
            for key, each in value.items()
        )
        return _constant(members) or Object(members)

    def _string(self, text: str, where: str) -> Part:
        try:
            pieces = cel_scan.scan(text)
        except ScanFault as fault:
            message = f"An expression is not closed: {fault}."
            self._faults.append(Fault(where, "expression_unclosed", message, _ESCAPE_HINT))
            return Literal(text)
        parts = tuple(self._pieces(pieces, where))
        match parts:
            case ():
                return Literal("")
            case (str() as only,):
                return Literal(only)
            case (Slot() as only,) if len(pieces) == 1:
                return only
            case _:
                return Text(parts)

    def _pieces(self, pieces: list[str | Source], where: str) -> Iterator[str | Slot]:
        for piece in pieces:
            if isinstance(piece, str):
                yield piece
            elif program := self._program(piece.text, where):
                self._references |= program.references
                self._secrets |= program.secrets
                self._roots |= program.roots
                yield Slot(program, where)

    def _program(self, source: str, where: str) -> Program | None:
        if len(source) > self._max_length:
            message = (
                f"The expression has {len(source)} characters; {self._max_length} are allowed."
            )
            hint = "Split it over several nodes."
            self._faults.append(Fault(where, "expression_too_long", message, hint))
            return None
        try:
            return self._program_of(source)
        except CompileFault as fault:
            message = f"{quoted(source)} does not compile: {fault.message}."
            self._faults.append(Fault(where, "expression_invalid", message, fault.hint))
            return None


def _constant(members: tuple[tuple[Part, Part], ...]) -> Literal | None:
    plain: dict[str, Json] = {}
    for key, each in members:
        if not (isinstance(key, Literal) and isinstance(each, Literal)):
            return None
        plain[str(key.value)] = each.value
    return Literal(plain)


def quoted(source: str) -> str:
    """The expression as it stands in messages, cut to 120 characters."""
    short = source if len(source) <= 120 else f"{source[:119]}…"
    return f"${{{{ {short} }}}}"
