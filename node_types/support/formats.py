"""Text to JSON values: CSV with inferred types, JSON, JSON Lines."""

import csv
import io
import math
import re
from collections.abc import Callable, Sequence

import orjson
from pydantic import JsonValue

_INT = re.compile(r"[+-]?(0|[1-9][0-9]{0,15})")
_FLOAT = re.compile(
    r"[+-]?((0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+|[1-9][0-9]*(?=[eE]))([eE][+-]?[0-9]+)?"
)
_BOOLS = {"true": True, "false": False}
_MAX_EXACT = 2**53 - 1  # RFC 8259 section 6: integers that every JSON reader holds exactly


class FormatError(ValueError):
    """The text is not in its format; the message says where."""


def read_json(text: str) -> JsonValue:
    """One JSON value, by RFC 8259 (so no NaN).

    Raises:
        FormatError: it is not JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise FormatError(f"line {error.lineno}, column {error.colno}: {error.msg}") from error


def read_json_lines(text: str) -> list[JsonValue]:
    """One JSON value a line; blank lines are skipped.

    Raises:
        FormatError: a line is not JSON.
    """
    values: list[JsonValue] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise FormatError(f"line {number}, column {error.colno}: {error.msg}") from error
    return values


def read_csv(text: str, nulls: frozenset[str]) -> list[JsonValue]:
    """Rows of an RFC 4180 table as objects; the first row names the columns.

    Raises:
        FormatError: no header, a column named twice or not at all, a row of another length.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    table: list[list[str]] = []
    try:
        header = next(reader, None)
        if not header:
            raise FormatError("there is no header row")
        _check_header(header)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise FormatError(
                    f"line {reader.line_num} has {len(row)} cells, the header has {len(header)}"
                )
            table.append(row)
    except csv.Error as error:
        raise FormatError(f"line {reader.line_num}: {error}") from error
    columns = [_typed(cells, nulls) for cells in zip(*table, strict=True)]
    return [dict(zip(header, row, strict=True)) for row in zip(*columns, strict=True)]


def _check_header(header: Sequence[str]) -> None:
    seen: set[str] = set()
    for number, name in enumerate(header, start=1):
        if not name.strip():
            raise FormatError(f"column {number} has no name")
        if name in seen:
            raise FormatError(f"two columns are named {name!r}")
        seen.add(name)


def _typed(cells: Sequence[str], nulls: frozenset[str]) -> list[JsonValue]:
    given = [cell for cell in cells if cell not in nulls]
    read: Callable[[str], JsonValue]
    if all(map(_is_int, given)):
        read = int
    elif all(map(_is_float, given)):
        read = float
    elif all(cell.lower() in _BOOLS for cell in given):
        read = _read_bool
    else:
        read = str
    return [None if cell in nulls else read(cell) for cell in cells]


def _is_int(cell: str) -> bool:
    return _INT.fullmatch(cell) is not None and abs(int(cell)) <= _MAX_EXACT


def _is_float(cell: str) -> bool:
    """An integer too large to be exact is no float either: the column is one of long codes."""
    if _FLOAT.fullmatch(cell):
        return math.isfinite(float(cell))
    return _is_int(cell)


def _read_bool(cell: str) -> bool:
    return _BOOLS[cell.lower()]
