"""Whether a value fits a schema (JSON Schema 2020-12, core and validation), in bounded work."""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from graph_defs.json_schema.formats import FORMATS
from graph_defs.json_schema.index import Index, Schema
from graph_defs.json_schema.work import Meter
from graph_defs.json_values import Json, JsonObject, Path, kind_of

_TYPES: dict[str, Callable[[Json], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "number": lambda value: _is_number(value),
    "integer": lambda value: _is_number(value) and float(value).is_integer(),  # pyright: ignore
}
_NOUNS = {"boolean": "a boolean", "object": "an object", "array": "an array", "null": "null"}


@dataclass(frozen=True, slots=True)
class Problem:
    """One way in which a value does not fit."""

    path: Path
    keyword: str
    message: str
    name: str = ""
    """The property that is missing, or not allowed."""


@dataclass(slots=True)
class _Seen:
    """What a schema has looked at in a value: the annotations that ``unevaluated*`` read."""

    properties: set[str] = field(default_factory=set[str])
    items: set[int] = field(default_factory=set[int])

    def add(self, other: "_Seen") -> None:
        self.properties |= other.properties
        self.items |= other.items
