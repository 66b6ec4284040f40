"""Text to a JSON object: one YAML or JSON document, read without surprises."""

import json
import re
from dataclasses import dataclass

from foundation.errors import Fault, Invalid, TooLarge
from foundation.settings import Limits
from graph_defs.json_values import Json, JsonObject, RepeatedKeys, check_content, kind_of, normal
from graph_defs.yaml_text import YamlSyntaxError, read_integer, read_yaml


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text holds, as far as it can be read, and what is wrong with it."""

    document: JsonObject | None
    """None where the text is not one document with an object at its top."""
    faults: tuple[Fault, ...]


def parse(source: bytes | str, limits: Limits) -> JsonObject:
    """Read one document, in JSON (RFC 8259) or YAML 1.2.

    YAML is read by its core schema, so only ``true`` and ``false`` are booleans (``yes`` and ``on``
    are strings) and dates stay strings. Tags other than ``!!str``, and aliases, are refused. Whole
    numbers come as int, however they were written: ``2.0`` is ``2``.

    Raises:
        TooLarge: more bytes than ``limits.max_document_bytes``.
        Invalid: it cannot be read, or ``check_content`` finds something in it.
    """
    reading = read(source, limits)
    if reading.faults or reading.document is None:
        raise Invalid("The document cannot be read.", reading.faults)
    return reading.document


def read(source: bytes | str, limits: Limits) -> Reading:
    """Like :func:`parse`, but keeps what could be read beside the faults.

    Raises:
        TooLarge: more bytes than ``limits.max_document_bytes``.
    """
    size = len(source) if isinstance(source, bytes) else len(source.encode(errors="replace"))
    if size > limits.max_document_bytes:
        raise TooLarge(
            f"The document has {size:,} bytes; {limits.max_document_bytes:,} are allowed.",
            hint="Split the graph, or ask the operator to raise GRAPHWRIGHT_MAX_DOCUMENT_BYTES.",
        )
    faults: list[Fault] = []
    try:
        value = _read_text(source, faults)
    except _UnreadableError as error:
        return Reading(None, (error.fault,))
    content = check_content(value, limits.max_depth)
    faults.extend(content)
    if not isinstance(value, dict):
        faults.append(
            Fault("", "wrong_type", f"The document must be an object, but is {kind_of(value)}.")
        )
        return Reading(None, tuple(faults))
    if any(fault.code in {"too_deep", "bad_string"} for fault in content):
        return Reading(None, tuple(faults))  # later steps recurse, and encode
    document = normal(value)
    assert isinstance(document, dict)
    return Reading(document, tuple(faults))


class _UnreadableError(Exception):
    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.fault = Fault("", code, message, hint)


def _read_text(source: bytes | str, faults: list[Fault]) -> Json:
    text = _decode(source)
    if not text.strip():
        raise _UnreadableError("wrong_type", "The document is empty.")
    try:
        return _read_either(text, faults)
    except RecursionError as error:
        raise _UnreadableError("too_deep", "Objects and arrays are nested too deep.") from error


def _read_either(text: str, faults: list[Fault]) -> Json:
    try:
        if re.match(r"\s*[{\[]", text):
            return _read_json(text)
    except json.JSONDecodeError as error:
        try:
            return read_yaml(text, faults)  # flow style, without quotes or with comments
        except YamlSyntaxError:
            raise _UnreadableError(
                "bad_syntax", f"Line {error.lineno}, column {error.colno}: {error.msg}."
            ) from error
    try:
        return read_yaml(text, faults)
    except YamlSyntaxError as error:
        raise _UnreadableError("bad_syntax", str(error), error.hint) from error


def _decode(source: bytes | str) -> str:
    try:
        text = source.decode("utf-8") if isinstance(source, bytes) else source
    except UnicodeDecodeError as error:
        raise _UnreadableError(
            "bad_encoding", f"The document is not UTF-8: byte {error.start:,} does not fit."
        ) from error
    return text.removeprefix("\ufeff")


def _read_json(text: str) -> Json:
    return json.loads(text, object_pairs_hook=_object, parse_int=read_integer)


def _object(pairs: list[tuple[str, Json]]) -> JsonObject:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    seen: set[str] = set()
    repeated = [key for key, _ in pairs if key in seen or seen.add(key)]
    return RepeatedKeys(members, list(dict.fromkeys(repeated)))
