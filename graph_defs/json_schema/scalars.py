"""The keywords that need no subschema: type, enum, const, and the bounds of each type."""

import json
import operator
from collections.abc import Callable, Hashable, Iterator
from fractions import Fraction
from typing import NamedTuple

from graph_defs.json_schema.formats import FORMATS
from graph_defs.json_schema.work import Meter
from graph_defs.json_values import Json, JsonObject, kind_of


class Finding(NamedTuple):
    """A keyword that the value breaks, and a sentence about it."""

    keyword: str
    message: str
    member: str | None = None
    """The field that it is about, where that is not the value itself."""


NOUNS = {
    "null": "null",
    "boolean": "a boolean",
    "object": "an object",
    "array": "an array",
    "string": "a string",
    "number": "a number",
    "integer": "an integer",
}


def check(schema: JsonObject, value: Json, meter: Meter) -> Iterator[Finding]:
    """What ``value`` breaks, among the keywords of this module.

    Raises:
        TooMuchWorkError: the meter ran out.
    """
    if "type" in schema:
        yield from _check_type(schema["type"], value)
    if isinstance(allowed := schema.get("enum"), list):
        meter.charge(len(allowed))
        own = key(value, meter)
        if all(key(each, meter) != own for each in allowed):
            yield Finding("enum", f"The value must be {_choices(allowed)}.")
    if "const" in schema and key(schema["const"], meter) != key(value, meter):
        yield Finding("const", f"The value must be {_show(schema['const'])}.")
    if isinstance(value, str):
        yield from _check_string(schema, value, meter)
    elif isinstance(value, list):
        yield from _check_array(schema, value, meter)
    elif isinstance(value, dict):
        yield from _check_object(schema, value, meter)
    elif is_number(value):
        yield from _check_number(schema, value)


def check_contains(schema: JsonObject, found: int) -> Iterator[Finding]:
    """``minContains`` and ``maxContains``, for so many items that fit ``contains``."""
    least = _count(schema, "minContains")
    least = 1 if least is None else least
    if found < least:
        yield Finding("contains", f"{found} of the items fit, and at least {least} must.")
    most = _count(schema, "maxContains")
    if most is not None and found > most:
        yield Finding("maxContains", f"{found} of the items fit, and at most {most} may.")


def key(value: Json, meter: Meter) -> Hashable:
    """Equal keys for values that are equal in JSON: 1 and 1.0 are, 1 and true are not."""
    meter.charge(1)
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, list):
        return ("array", tuple(key(item, meter) for item in value))
    if isinstance(value, dict):
        return ("object", frozenset((name, key(item, meter)) for name, item in value.items()))
    return value


def is_number(value: Json) -> bool:
    """Whether a value is a number (in Python, a bool is an int)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def has_type(value: Json, name: str) -> bool:
    """Whether a value is of one of JSON Schema's seven types."""
    if name == "integer":
        return isinstance(value, int | float) and is_number(value) and value == value // 1
    if name == "number":
        return is_number(value)
    return _TYPES[name](value)


_TYPES: dict[str, Callable[[Json], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
}


def _check_type(wanted: Json, value: Json) -> Iterator[Finding]:
    names = wanted if isinstance(wanted, list) else [wanted]
    if not any(has_type(value, name) for name in names if isinstance(name, str)):
        nouns = " or ".join(NOUNS[name] for name in names if isinstance(name, str))
        yield Finding("type", f"The value must be {nouns}, but is {kind_of(value)}.")


def _is_multiple(value: float, of: float) -> bool:
    """Exactly, for the decimals that were written: 0.3 is a multiple of 0.1."""
    return Fraction(str(value)) % Fraction(str(of)) == 0


_BOUNDS: tuple[tuple[str, Callable[[float, float], bool], str], ...] = (
    ("minimum", operator.ge, "at least"),
    ("maximum", operator.le, "at most"),
    ("exclusiveMinimum", operator.gt, "greater than"),
    ("exclusiveMaximum", operator.lt, "less than"),
    ("multipleOf", _is_multiple, "a multiple of"),
)


def _check_number(schema: JsonObject, value: Json) -> Iterator[Finding]:
    assert isinstance(value, int | float)
    for keyword, fits, rule in _BOUNDS:
        bound = schema.get(keyword)
        if isinstance(bound, int | float) and not fits(value, bound):
            yield Finding(
                keyword, f"The value must be {rule} {_show(bound)}, but is {_show(value)}."
            )


def _check_string(schema: JsonObject, value: str, meter: Meter) -> Iterator[Finding]:
    yield from _check_size(schema, len(value), "minLength", "maxLength", "characters")
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and not meter.matches(pattern, value):
        yield Finding("pattern", f"The value must match the pattern {_show(pattern)}.")
    form = schema.get("format")
    if isinstance(form, str) and form in FORMATS:
        meter.charge(len(value))
        if not FORMATS[form](value):
            yield Finding("format", f"The value must have the format {form}.")


def _check_array(schema: JsonObject, value: list[Json], meter: Meter) -> Iterator[Finding]:
    yield from _check_size(schema, len(value), "minItems", "maxItems", "items")
    if schema.get("uniqueItems") is True and len({key(v, meter) for v in value}) < len(value):
        yield Finding("uniqueItems", "The items must differ from each other.")


def _check_object(schema: JsonObject, value: JsonObject, meter: Meter) -> Iterator[Finding]:
    yield from _check_size(schema, len(value), "minProperties", "maxProperties", "fields")
    wanted = list(_names(schema.get("required")))
    dependent = schema.get("dependentRequired")
    if isinstance(dependent, dict):
        meter.charge(len(dependent))
        wanted += [n for name, needed in dependent.items() if name in value for n in _names(needed)]
    meter.charge(len(wanted))
    for name in dict.fromkeys(wanted):
        if name not in value:
            yield Finding("required", f"The field `{name}` is missing.", name)


def _check_size(
    schema: JsonObject, size: int, least: str, most: str, what: str
) -> Iterator[Finding]:
    minimum, maximum = _count(schema, least), _count(schema, most)
    if minimum is not None and size < minimum:
        yield Finding(least, f"At least {minimum} {what} are needed, and there are {size}.")
    if maximum is not None and size > maximum:
        yield Finding(most, f"At most {maximum} {what} are allowed, and there are {size}.")


def _count(schema: JsonObject, keyword: str) -> int | None:
    count = schema.get(keyword)
    return int(count) if isinstance(count, int | float) else None


def _names(value: Json) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _choices(allowed: list[Json]) -> str:
    shown = ", ".join(_show(each) for each in allowed[:10])
    if len(allowed) > 10:
        shown += f" or one of {len(allowed) - 10} more"
    return f"one of {shown}" if len(allowed) > 1 else shown


def _show(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, dict | list) else "…"
    return text if len(text) <= 100 else f"{text[:100]}…"
