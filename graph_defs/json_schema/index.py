"""Where the subschemas of a schema are, and what its references lead to."""

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias
from urllib.parse import unquote

from graph_defs.json_values import Json, JsonObject, Path, pointer

Schema: TypeAlias = JsonObject | bool

ONE: Final = frozenset(
    {"additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"}
    | {"unevaluatedItems", "unevaluatedProperties"}
)
"""Keywords whose value is a schema."""
MANY: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
"""Keywords whose value is an array of schemas."""
NAMED: Final = frozenset({"$defs", "dependentSchemas", "patternProperties", "properties"})
"""Keywords whose value is an object of schemas."""
IN_PLACE: Final = frozenset(
    {"allOf", "anyOf", "dependentSchemas", "else", "if", "not", "oneOf", "then"}
)
"""Keywords whose schemas are applied to the same value as the schema that holds them."""


def members(schema: JsonObject) -> Iterator[tuple[Path, Json]]:
    """The values at which a schema should hold subschemas, each with its path from it."""
    for keyword, value in schema.items():
        if keyword in ONE:
            yield (keyword,), value
        elif keyword in MANY and isinstance(value, list):
            for index, item in enumerate(value):
                yield (keyword, index), item
        elif keyword in NAMED and isinstance(value, dict):
            for name, item in value.items():
                yield (keyword, name), item


class Index:
    """The subschemas of a schema by JSON Pointer, and its anchors."""

    def __init__(self, root: Schema) -> None:
        self._places: dict[str, Schema] = {}
        self._paths: dict[str, Path] = {}
        self._anchors: dict[str, str] = {}
        self._add(root, ())

    @property
    def places(self) -> Mapping[str, Schema]:
        """Every subschema by its pointer, the whole schema included."""
        return self._places

    def path(self, place: str) -> Path:
        """The path of a subschema."""
        return self._paths[place]

    def find(self, reference: str) -> str | None:
        """The pointer of the subschema that a ``$ref`` leads to; None where it leads to none."""
        if not reference.startswith("#"):
            return None
        fragment = unquote(reference[1:])
        place = self._anchors.get(fragment) if fragment and fragment[0] != "/" else fragment
        return place if place is not None and place in self._places else None

    def resolve(self, reference: str) -> Schema:
        """The subschema that a ``$ref`` leads to, in a schema without faults."""
        place = self.find(reference)
        return True if place is None else self._places[place]

    def _add(self, schema: Schema, path: Path) -> None:
        place = pointer(path)
        self._places[place] = schema
        self._paths[place] = path
        if isinstance(schema, bool):
            return
        anchor = schema.get("$anchor")
        if isinstance(anchor, str):
            self._anchors.setdefault(anchor, place)
        for step, member in members(schema):
            if isinstance(member, dict | bool):
                self._add(member, path + step)
