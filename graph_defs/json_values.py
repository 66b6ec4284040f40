"""JSON values: their type, RFC 6901 pointers to them, and what we ask of them beyond RFC 8259."""

import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from foundation.errors import Fault

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
JsonObject: TypeAlias = dict[str, Json]
Path: TypeAlias = tuple[str | int, ...]
"""The member names and array indexes that lead to a value."""

MAX_EXACT_INTEGER = 2**53 - 1
"""RFC 8259 section 6: larger integers are not the same in every JSON reader."""

_EXPONENT_FROM = 1e21
"""RFC 8785 writes whole doubles below this as integers, and from here on with an exponent."""


class RepeatedKeys(dict[str, Json]):
    """An object in whose text a key was given twice; readers make it, and checks refuse it."""

    __slots__ = ("repeated",)

    def __init__(self, members: Mapping[str, Json], repeated: list[str]) -> None:
        super().__init__(members)
        self.repeated = repeated


def pointer(path: Path) -> str:
    """The RFC 6901 JSON Pointer of a path: ``("nodes", "a/b", 0)`` is ``/nodes/a~1b/0``."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def strings(value: Json, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every string inside ``value``, in document order; a key has the path of its member."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strings(item, (*path, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key), key
            yield from strings(item, (*path, key))


def kind_of(value: object) -> str:
    """A value's JSON type for messages, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    for types, noun in (
        (int, "an integer"),
        (float, "a number"),
        (str, "a string"),
        (list, "an array"),
    ):
        if isinstance(value, types):
            return noun
    return "an object"


def check_content(value: Json, max_depth: int, base: Path = ()) -> list[Fault]:
    """Find what no JSON value of ours may hold, wherever it is in ``value``.

    That is: more than ``max_depth`` levels of objects and arrays; a repeated key; a number that is
    not finite; a whole number beyond 2**53 - 1 (unless large enough to be written with an
    exponent, so that it reads back as the double that it is); a string that is not Unicode text,
    or holds U+0000 (PostgreSQL stores neither).
    """
    faults: list[Fault] = []
    pending: list[tuple[Path, Json, int]] = [(base, value, 0)]
    while pending:
        path, item, depth = pending.pop()
        if isinstance(item, dict | list):
            if depth >= max_depth:
                faults.append(_too_deep(path, max_depth))
                continue
            members = item.items() if isinstance(item, dict) else enumerate(item)
            pending.extend(((*path, key), member, depth + 1) for key, member in members)
            if isinstance(item, dict):
                faults.extend(_check_keys(path, item))
        else:
            faults.extend(_check_scalar(path, item))
    faults.sort(key=lambda fault: fault.pointer)
    return faults


def _too_deep(path: Path, max_depth: int) -> Fault:
    return Fault(
        pointer(path),
        "too_deep",
        f"Objects and arrays are nested more than {max_depth} deep.",
        "Flatten the value.",
    )


def _check_keys(path: Path, item: JsonObject) -> Iterator[Fault]:
    if isinstance(item, RepeatedKeys):
        for key in item.repeated:
            yield Fault(
                pointer((*path, key)),
                "duplicate_key",
                f"The key {key!r} is given more than once.",
                "Keep one of them.",
            )
    for key in item:
        if not _is_text(key):
            yield _bad_string((*path, key.encode(errors="replace").decode()))


def _check_scalar(path: Path, item: Json) -> Iterator[Fault]:
    if isinstance(item, str):
        if not _is_text(item):
            yield _bad_string(path)
    elif isinstance(item, float):
        if not math.isfinite(item):
            yield Fault(
                pointer(path),
                "bad_number",
                "A number must be finite.",
                "JSON has no NaN and no infinity; use null or a string.",
            )
        elif MAX_EXACT_INTEGER < abs(item) < _EXPONENT_FROM:
            yield _inexact(path)
    elif isinstance(item, int) and abs(item) > MAX_EXACT_INTEGER:
        yield _inexact(path)


def _inexact(path: Path) -> Fault:
    return Fault(
        pointer(path),
        "bad_number",
        "An integer beyond 2^53 - 1 would lose digits.",
        "Write it as a string.",
    )


def _is_text(value: str) -> bool:
    if "\0" in value:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bad_string(path: Path) -> Fault:
    return Fault(
        pointer(path),
        "bad_string",
        "A string holds U+0000 or half of a surrogate pair.",
        "Encode binary data, for instance in base64.",
    )


def normal(value: Json) -> Json:
    """The same value with whole numbers as int: in JSON, ``2.0`` and ``2`` are one number."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= MAX_EXACT_INTEGER else value
    if isinstance(value, list):
        return [normal(item) for item in value]
    if isinstance(value, dict):
        return {key: normal(item) for key, item in value.items()}
    return value
