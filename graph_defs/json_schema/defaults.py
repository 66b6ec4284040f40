"""Filling in what a value leaves out."""

from copy import deepcopy

from graph_defs.json_schema.index import Index, Schema
from graph_defs.json_schema.work import Meter
from graph_defs.json_values import Json


def fill_defaults(schema: Schema, value: Json, index: Index, meter: Meter) -> Json:
    """A copy of ``value`` with the defaults of the fields that it leaves out.

    A field that is missing gets its schema's ``default``, also where that is behind a ``$ref`` or
    in an ``allOf``; of several the first wins. What is there, and what was filled in, is filled in
    turn: through ``properties``, ``additionalProperties``, ``items`` and ``prefixItems``. An object
    that is missing and has no default of its own is not made up for the sake of its fields: give it
    ``default: {}`` (Kubernetes' rule). Defaults in ``anyOf``, ``oneOf`` and ``if`` are not filled
    in, since whether they apply depends on the value that they would change.

    Raises:
        TooMuchWorkError: the meter ran out.
        RecursionError: references lead too deep.
    """
    return _Filling(index, meter).fill(schema, deepcopy(value))


class _Filling:
    def __init__(self, index: Index, meter: Meter) -> None:
        self._index = index
        self._meter = meter

    def fill(self, schema: Schema, value: Json) -> Json:
        """Fill in place, and return the value."""
        self._meter.charge(1)
        if isinstance(schema, bool) or not isinstance(value, dict | list):
            return value
        for other in self._parts(schema):
            self.fill(other, value)
        if isinstance(value, dict):
            self._fill_object(schema, value)
        else:
            self._fill_array(schema, value)
        return value

    def _parts(self, schema: dict[str, Json]) -> list[Schema]:
        """The schemas that apply together with this one, whatever the value."""
        parts: list[Schema] = []
        reference, others = schema.get("$ref"), schema.get("allOf")
        if isinstance(reference, str):
            parts.append(self._index.resolve(reference))
        if isinstance(others, list):
            parts.extend(other for other in others if isinstance(other, dict))
        return parts

    def _fill_object(self, schema: dict[str, Json], value: dict[str, Json]) -> None:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        self._meter.charge(len(properties))
        for name, member in properties.items():
            if isinstance(member, dict):
                if name not in value and (default := self._default(member)):
                    self._meter.charge(_weight(default[0]))
                    value[name] = deepcopy(default[0])
                if name in value:
                    self.fill(member, value[name])
        rest = schema.get("additionalProperties")
        if isinstance(rest, dict):
            for name, item in value.items():
                if name not in properties:
                    self.fill(rest, item)

    def _fill_array(self, schema: dict[str, Json], value: list[Json]) -> None:
        prefix, rest = schema.get("prefixItems"), schema.get("items")
        prefix = prefix if isinstance(prefix, list) else []
        for index, item in enumerate(value):
            each = prefix[index] if index < len(prefix) else rest
            if isinstance(each, dict):
                self.fill(each, item)

    def _default(self, schema: dict[str, Json]) -> tuple[Json] | None:
        self._meter.charge(1)
        if "default" in schema:
            return (schema["default"],)
        for other in self._parts(schema):
            if isinstance(other, dict) and (found := self._default(other)):
                return found
        return None


def _weight(value: Json) -> int:
    """Units for copying and writing out a default: a small schema may repeat a large one."""
    if isinstance(value, str):
        return 1 + len(value) // 16
    if isinstance(value, list):
        return 1 + sum(map(_weight, value))
    if isinstance(value, dict):
        return 1 + sum(len(key) // 16 + _weight(item) for key, item in value.items())
    return 1
