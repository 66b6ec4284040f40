"""Values of secrets, struck out of whatever leaves a node.

A value is found however it is written: as it is, or with capitals made small (hosts, names of
headers); escaped as in JSON, once or several times over; percent-encoded, by whatever rules of what
needs to be, once or several times over; as HTML; in hex; and in base64, in either alphabet, broken
into lines or not, wherever in the encoded text it begins. Base64 of the percent-encoded value is
found too. Of a value of several lines each longer line is struck out by itself as well.

Each value becomes one regular expression of RE2, which takes linear time over any text. It works on
bytes, since a text may hold half of a surrogate pair, which is no UTF-8. The module ``re2`` keeps
the last 128 expressions in memory, so that the next attempt need not compile them again.
"""

import html
import re
from base64 import b64encode
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast
from urllib.parse import quote, quote_plus

import re2

from foundation.errors import GraphwrightError, Invalid
from node_types.base import NodeContext

MASK: Final = "***"

MIN_LENGTH: Final = 4
"""Characters of the shortest value that can be struck out: shorter ones stand in any text."""

_LINE_LENGTH: Final = 8
"""Characters of the shortest line that is struck out by itself."""

_EVERY_FORM_BYTES: Final = 5 * 2**10
"""Bytes of values, with the lines that are looked for by themselves, up to which every form is
looked for. Of more, what RE2 could not compile any more is left out: percent-encoding several times
over, base64 that is broken into lines, and base64 of the percent-encoded."""

_PROGRAM_BYTES: Final = 2**16
_MAX_PROGRAM_BYTES: Final = 2**28
"""Memory that RE2 may take for each byte of a value, and at most, beyond what it always may. With
less room than for a few states of its automaton it searches at a fiftieth of its speed or below."""

_ESCAPED: Final = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}
_PERCENT: Final = "%(?:25)*"
"""What precedes the hex digits of a byte, percent-encoded once or several times over."""

_BASE64: Final = {"+": f"(?:[+-]|{_PERCENT}2[bB])", "/": rf"(?:\\*/|_|{_PERCENT}2[fF])"}
_BASE64_EDGE: Final = "[A-Za-z0-9+/_-]?"
"""A digit that holds bits of the value and of its neighbour."""

_BREAK: Final = r"(?:[\t-\r ]|\\+[nr]|%0[aAdD])*"
"""What may stand between two lines of base64: a line holds whole groups of four digits."""


class Redactor:
    """Strikes out these values. Threads may share it."""

    def __init__(self, values: Collection[str]) -> None:
        """Each value has at least `MIN_LENGTH` characters, blanks at its ends not counted."""
        cores = {core for value in values for core in _cores(value)}
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1  # any bytes
        options.longest_match = True
        options.never_capture = True
        options.log_errors = False  # it would log the pattern
        size = sum(len(core.encode()) for core in cores)
        options.max_mem += min(_PROGRAM_BYTES * size, _MAX_PROGRAM_BYTES)
        every = size <= _EVERY_FORM_BYTES
        pattern = "|".join(form for core in sorted(cores) for form in _forms(core, every=every))
        self._pattern = cast("re.Pattern[bytes]", re2.compile(pattern.encode(), options))
        self._holds_mask = any("*" in core for core in cores)

    def text(self, text: str) -> str:
        """The text with ``***`` for every value in it."""
        data = text.encode("utf-8", "surrogatepass")
        if self._pattern.search(data) is None:
            return text
        data = self._pattern.sub(MASK.encode(), data)
        while self._holds_mask and self._pattern.search(data):  # masks may complete a value
            data = self._pattern.sub(MASK.encode(), data)
        return data.decode("utf-8", "surrogatepass")

    def finds(self, text: bytes) -> bool:
        """Whether there is a value in a text, or in a string of a JSON text."""
        return self._pattern.search(text) is not None

    def value(self, value: Any) -> Any:
        """A JSON value of the same shape, without the values in its strings and keys.

        A number in whose digits a value is becomes the string ``***``. Keys that become equal are
        numbered.
        """
        match value:
            case str():
                return self.text(value)
            case dict():
                return self._object(cast("dict[str, Any]", value))
            case list() | tuple():
                return [self.value(each) for each in cast("list[Any]", value)]
            case bool():
                return value
            case int() | float() if self.finds(repr(value).encode()):
                return MASK
            case _:
                return value

    def error(self, error: GraphwrightError) -> None:
        """Strike the values out of an error, in place; what caused it is dropped."""
        error.args = tuple(self.value(each) for each in error.args)
        error.message, error.hint = self.text(error.message), self.text(error.hint)
        error.ids = {name: self.text(each) for name, each in error.ids.items()}
        if isinstance(error, Invalid):
            error.faults = tuple(
                replace(
                    fault,
                    pointer=self.text(fault.pointer),
                    message=self.text(fault.message),
                    hint=self.text(fault.hint),
                )
                for fault in error.faults
            )
        error.__cause__ = error.__context__ = None
        vars(error).pop("__notes__", None)

    def context(self, context: NodeContext) -> NodeContext:
        """The same context, but that what the node tells through it is without the values."""

        def log(level: str, message: str) -> None:
            context.log(level, self.text(message))

        def materialize(key: Sequence[str], metadata: Mapping[str, Any]) -> None:
            context.materialize([self.text(part) for part in key], self.value(metadata))

        return replace(context, log=log, materialize=materialize)

    def _object(self, members: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for number, (key, each) in enumerate(members.items(), 1):
            told = self.text(key)
            result[f"{told} ({number})" if told in result else told] = self.value(each)
        return result


def is_too_short(value: str) -> bool:
    """Whether a value is too short to be struck out."""
    return len(value.strip()) < MIN_LENGTH


def _cores(value: str) -> Iterator[str]:
    """What of a value is looked for: the blanks at its ends may get lost on the way."""
    yield value.strip()
    for line in value.splitlines():
        if len(line.strip()) >= _LINE_LENGTH:
            yield line.strip()


def _forms(core: str, *, every: bool) -> Iterator[str]:
    """Patterns of the ways in which a text may hold it: of all, or without the costly ones."""
    percent = _PERCENT if every else "%"
    yield "".join(_character(character, percent) for character in core)
    yield f"(?i:{core.encode().hex()})"
    spellings = {core}
    if every:
        spellings |= {quote(core), quote(core, safe=""), quote_plus(core)}
    for spelling in sorted(spellings):
        for before in range(3):  # bytes of others in the first group of three
            yield _base64(spelling.encode(), before, _BREAK if every else "")


def _base64(data: bytes, before: int, line_break: str) -> str:
    """Pattern of the base64 of bytes that have so many before them in their group of three."""
    digits = b64encode(b"\0" * before + data).decode()
    end = before + len(data)
    first = -(-before * 8 // 6)
    pattern = _BASE64_EDGE if before else ""
    for place, digit in enumerate(digits[first : end * 8 // 6], first):
        if place and place % 4 == 0:
            pattern += line_break
        pattern += _BASE64.get(digit, digit)
    return pattern + (f"{_BASE64_EDGE}(?:=|{_PERCENT}3[dD]){{0,2}}" if end % 3 else "")


def _character(character: str, percent: str) -> str:
    """Pattern of the ways in which a character may be written."""
    spellings = dict.fromkeys((character, character.lower()))
    if not character.isascii():
        return f"(?:{'|'.join(_beyond_ascii(each, percent) for each in spellings)})"
    codes = [f"{ord(spelling):02x}" for spelling in spellings]
    plain = "".join(rf"\x{code}" for code in codes)
    escaped = _ESCAPED.get(character, "") + ("" if character.isalnum() else plain)
    ways = [rf"\\+(?:u00(?i:{'|'.join(codes)})" + (f"|[{escaped}])" if escaped else ")")]
    if character == " ":  # + in a form, which may have been encoded again
        plain += r"\+"
        codes.append("2b")
    ways += [f"[{plain}]", f"{percent}(?i:{'|'.join(codes)})"]
    if (entity := html.escape(character)) != character:
        ways.append(entity)
    return f"(?:{'|'.join(ways)})"


def _beyond_ascii(spelling: str, percent: str) -> str:
    """Pattern of the ways in which a character that is not ASCII, or its small one, is written."""
    utf8 = "".join(f"(?:\\x{byte:02x}|{percent}(?i:{byte:02x}))" for byte in spelling.encode())
    utf16 = spelling.encode("utf-16-be").hex()
    units = (utf16[start : start + 4] for start in range(0, len(utf16), 4))
    return f"{utf8}|" + "".join(rf"\\+u(?i:{unit})" for unit in units)
