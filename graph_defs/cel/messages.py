"""What cel-cpp says when an evaluation fails, put into a user's words."""

import re
from collections.abc import Sequence
from typing import Final

from graph_defs.cel.inputs import Input

_ABSENT: Final = re.compile(r'No value with name "(@\d+)" found in Activation')
_OVERLOAD: Final = re.compile(r"No matching overloads found : (\S+?)(?:\((.*)\))?$")
_METHOD: Final = re.compile(r"No matching overloads found : \((.*?)\)\.(\w+)\((.*)\)$")
_REWORDED: Final = tuple(
    (re.compile(pattern), message, hint)
    for pattern, message, hint in (
        (
            r"Key not found in map : (.*)$",
            r"there is no key \1",
            "Test with has(x.key) or 'key' in x where it may be missing.",
        ),
        (
            r"Index error: index=(-?\d+) size=(\d+)",
            r"index \1 is outside a list of \2",
            "The first element has index 0; size(list) counts them.",
        ),
        (
            r"SELECT to non-message",
            "a value that is no object has no fields",
            "Test with type(x) == map before.",
        ),
        (r"^divide by zero", "division by zero", "Guard it: d == 0 ? 0 : n / d."),
        (r"^modulus by zero", "remainder of a division by zero", "Guard it: d == 0 ? 0 : n % d."),
        (
            r"overflow",
            "a number left the range of its type",
            "Use double() where 64 bits are not enough.",
        ),
    )
)
_OPERATOR: Final = re.compile(r"^_(\W+)_$|^(\W)_$")
_TYPES: Final = {
    "int64": "int",
    "uint64": "uint",
    "null_type": "null",
    "google.protobuf.Timestamp": "timestamp",
    "google.protobuf.Duration": "duration",
}
_WORDS: Final = {"@in": "in", "<jump_condition>": "a condition", "<iter_range>": "a comprehension"}
_NUMERIC: Final = frozenset({"int", "uint", "double"})

ITERATIONS: Final = "Iteration budget exceeded"


def absent(raw: str, inputs: Sequence[Input]) -> Input | None:
    """The input whose absence the message is about."""
    found = _ABSENT.search(raw)
    return next((each for each in inputs if found and each.name == found[1]), None)


def explain(raw: str) -> tuple[str, str]:
    """Message and hint for any other failure."""
    if found := _METHOD.search(raw):
        receiver, function, rest = found.groups()
        return _mismatch(f"{function}()", [receiver, *_split(rest)])
    if found := _OVERLOAD.search(raw):
        return _mismatch(found[1], _split(found[2] or ""))
    for pattern, message, hint in _REWORDED:
        if found := pattern.search(raw):
            return found.expand(message), hint
    return raw, ""


def _split(types: str) -> list[str]:
    return [each.strip() for each in types.split(",") if each.strip()]


def _mismatch(function: str, raw_types: list[str]) -> tuple[str, str]:
    types = [_TYPES.get(each, each) for each in raw_types]
    operator = _OPERATOR.match(function)
    name = (operator[1] or operator[2]) if operator else _WORDS.get(function, function)
    what = f"{name} cannot take {' and '.join(types)}" if types else f"{name} cannot take this type"
    if function == "<iter_range>":
        return "only a list or a map can be iterated over", ""
    if function in {"<jump_condition>", "_&&_", "_||_", "!_"}:
        return f"{name} needs a bool", "Compare explicitly, such as x != null or size(x) > 0."
    if len(types) == 2 and set(types) <= _NUMERIC:
        return what, "Arithmetic does not mix int and double: convert with double() or int()."
    if "string" in types and "_+_" in function:
        return what, "Convert with string()."
    return what, "Convert with int(), double() or string()."
