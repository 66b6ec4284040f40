"""JSON on its way into CEL (checked and measured) and CEL's values on their way out.

Guards against what the binding gets wrong, each seen with cel-expr-python 0.1.3: it cuts strings
at NUL, fails obscurely on lone surrogates, turns an int over int64 into a uint, overruns the C
stack on deep nesting, and gives a null away without owning it.
"""

import base64
import ctypes
import datetime
import math
import sys
from typing import Any, Final, NamedTuple, cast

from graph_defs.cel.faults import NotQuick, ValueFault

UNIT: Final = 64
"""Bytes that any value is taken to occupy, besides its text; see cel_cost."""
MAX_DEPTH: Final = 128
_INT64: Final = 2**63


class Extent(NamedTuple):
    """How much data there is: bytes in all, and elements of the longest container."""

    size: int
    width: int


class _KeySizes(dict[str, int]):
    """Sizes of keys, worked out once each, since the rows of a table share theirs."""

    def __missing__(self, key: object) -> int:
        if not isinstance(key, str):
            raise ValueFault(f"a key of an object is {type(key).__name__}, not a string")
        size = self[key] = UNIT + _text_size(key)
        return size


def measure(value: Any, at_most: float = math.inf) -> Extent:
    """Measures and checks a JSON value that is to become a CEL variable.

    Raises `ValueFault`, and `NotQuick` as soon as the value is seen to have over ``at_most`` bytes.
    """
    size = width = depth = 0
    key_sizes = _KeySizes()
    level: list[Any] = [value]
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueFault(f"a value is nested deeper than {MAX_DEPTH} levels")
        size += UNIT * len(level)
        if size > at_most:
            raise NotQuick
        below: list[Any] = []
        for kind, each in zip(map(type, level), level, strict=True):
            if kind is str:
                size += len(each) if each.isascii() and "\0" not in each else _text_size(each)
            elif kind is dict:
                size += sum(map(key_sizes.__getitem__, each))
                width = max(width, len(each))
                below += each.values()
            elif kind is list:
                width = max(width, len(each))
                below += each
            elif kind is int:
                if not -_INT64 <= each < _INT64:
                    raise _too_large(each)
            elif kind is float:
                if not math.isfinite(each):
                    raise ValueFault(f"a value is {_float_name(each)}, which is no JSON")
            elif each is not None and kind is not bool:
                raise ValueFault(f"a value is no JSON: {kind.__name__}")
        level = below
    return Extent(size, width)


def _text_size(text: str) -> int:
    """Bytes of ``text`` in UTF-8. Raises `ValueFault`."""
    if "\0" in text:
        raise ValueFault("a string holds a NUL character, which expressions cannot carry")
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise ValueFault(
            "a string holds half a surrogate pair, so it is no valid Unicode"
        ) from None


def _too_large(value: int) -> ValueFault:
    return ValueFault(
        f"the number {value} does not fit in 64 bits", "Pass it as a string, or as a double."
    )


def to_json(value: Any) -> Any:
    """What the binding's ``plain_value()`` returned, as JSON; keys sorted, since CEL's maps have no
    order of their own. Call it exactly once for a value: see `_Reader.own_nulls`.

    Timestamps become RFC 3339 in UTC, durations CEL's ``"1.5s"``, bytes base64, as in protobuf's
    JSON; ints and uints become ints. Raises `ValueFault` for NaN, infinities, types, and keys that
    are no strings.
    """
    reader = _Reader()
    result = reader.read(value)
    reader.own_nulls()
    if reader.fault:
        raise ValueFault(*reader.fault)
    return result


class _Reader:
    """Reads to the end whatever it meets, since every null must be counted."""

    def __init__(self) -> None:
        self.nulls = 0
        self.fault: tuple[str, str] | None = None

    def read(self, value: Any) -> Any:
        if value is None:
            self.nulls += 1
            return None
        if isinstance(value, str | bool | int):
            return value
        if isinstance(value, float):
            if not math.isfinite(value):
                self._fail(
                    f"the result holds {_float_name(value)}, which JSON cannot express",
                    "Guard the division, or test with math.isFinite(x).",
                )
            return value
        if isinstance(value, list):
            return [self.read(each) for each in cast("list[Any]", value)]
        if isinstance(value, dict):
            return self._object(cast("dict[Any, Any]", value))
        return self._other(value)

    def own_nulls(self) -> None:
        """Takes the references to None that the binding forgot to.

        ``CelValueToPyObject`` returns ``Py_None`` without ``Py_INCREF``, so that each null of a
        result would take one reference away, and Python 3.11 aborts when None has none left. From
        3.12 on None is immortal (PEP 683).
        """
        if sys.version_info < (3, 12):
            for _ in range(self.nulls):
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(None))

    def _fail(self, message: str, hint: str) -> None:
        self.fault = self.fault or (message, hint)

    def _object(self, value: dict[Any, Any]) -> dict[str, Any]:
        result = {key: self.read(each) for key, each in value.items()}
        if all(isinstance(key, str) for key in result):
            return {key: result[key] for key in sorted(result)}
        self._fail(
            "the result holds a map whose keys are not all strings, which JSON cannot express",
            "Write the keys as string(key).",
        )
        return result

    def _other(self, value: object) -> Any:
        if isinstance(value, bytes | bytearray):
            return base64.b64encode(value).decode()
        if isinstance(value, datetime.datetime):
            return _timestamp(value)
        if isinstance(value, datetime.timedelta):
            return _duration(value)
        self._fail(
            "the result holds a type, which JSON cannot express",
            "Compare types inside the expression.",
        )
        return None


def _float_name(value: float) -> str:
    return "NaN" if math.isnan(value) else "infinity"


def _timestamp(value: datetime.datetime) -> str:
    moment = value.astimezone(datetime.UTC).replace(tzinfo=None)
    text = moment.isoformat()
    return (text.rstrip("0") if moment.microsecond else text) + "Z"


def _duration(value: datetime.timedelta) -> str:
    microseconds = value // datetime.timedelta(microseconds=1)
    whole, rest = divmod(abs(microseconds), 1_000_000)
    sign = "-" if microseconds < 0 else ""
    return f"{sign}{whole}{f'.{rest:06d}'.rstrip('0') if rest else ''}s"
