"""YAML to JSON values, from libyaml's events by YAML 1.2's core schema; and back.

PyYAML's own constructors follow YAML 1.1 (``no`` is false, ``1:30`` is 90), keep the last of
repeated keys, recurse, and expand aliases. Events leave all of that to us.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from foundation.errors import Fault
from graph_defs.json_values import MAX_EXACT_INTEGER, Json, JsonObject, Path, RepeatedKeys, pointer

_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_RADIX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_DIGITS = 20
_MAX_NESTING = 1_000
"""Far more than any limit allows; libyaml's time grows with its square, so reading stops there."""

_STRING_TAGS = frozenset({"!", "tag:yaml.org,2002:str"})
_COLLECTION_TAGS = frozenset({"!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})


class YamlSyntaxError(ValueError):
    """The text is not one YAML document; the message says where."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def read_yaml(text: str, faults: list[Fault]) -> Json:
    """The one document of ``text``; aliases and tags that we do not take are added to ``faults``.

    Raises:
        YamlSyntaxError: no YAML, or more than one document.
        RecursionError: nested deeper than anyone means.
    """
    builder = _Builder(faults)
    try:
        for event in _events(text):
            builder.take(event)
    except yaml.YAMLError as error:
        raise YamlSyntaxError(_describe(error)) from error
    return builder.value


def write_yaml(document: JsonObject) -> str:
    """A document as YAML for people: in its own order, long lines kept."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1_000)


class _Dumper(yaml.CSafeDumper):
    """PyYAML's, which leaves what is a string in YAML 1.1 unquoted; in 1.2, ``0E0`` is a number."""


def _represent_string(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(read_scalar(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_string)


def read_integer(digits: str) -> int:
    """A decimal integer; for one that is too long to be exact, some other that is too large."""
    return int(digits) if len(digits) <= _MAX_DIGITS else MAX_EXACT_INTEGER + 1


def read_scalar(text: str) -> bool | int | float | str | None:
    """A plain scalar by YAML 1.2.2's core schema (section 10.3.2)."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    return _read_number(text)


def _read_number(text: str) -> int | float | str:
    if _INT.fullmatch(text):
        return read_integer(text)
    if _RADIX.fullmatch(text):
        return int(text, 0) if len(text) <= _MAX_DIGITS else MAX_EXACT_INTEGER + 1
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float("nan")  # refused by check_content, with its pointer
    return text


def _events(text: str) -> Iterator[Any]:
    return yaml.parse(text, Loader=yaml.CSafeLoader)


def _describe(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f"Line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = ", ".join(part for part in (error.context, error.problem) if part)
        return f"{where}{what}."
    return "The text holds characters that YAML does not allow."


class _Builder:
    """Builds values from events with a stack of its own, so that no nesting exhausts Python's."""

    def __init__(self, faults: list[Fault]) -> None:
        self.value: Json = None
        self._faults = faults
        self._documents = 0
        self._open: list[JsonObject | list[Json]] = []
        self._keys: list[str | None] = []  # the key that waits for its value, per open collection
        self._path: list[str | int] = []  # where each open collection but the first is

    def take(self, event: Any) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise YamlSyntaxError(
                    "The text holds more than one document.",
                    "Put each graph into a file of its own.",
                )
        elif isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._start(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._open.pop()
            self._keys.pop()
            del self._path[-1:]
        elif isinstance(event, yaml.AliasEvent):
            self._refuse("yaml_alias", f"The alias `*{event.anchor}` is not accepted.")
            self._add(None)

    def _scalar(self, event: Any) -> None:
        text: str = event.value
        if self._awaits_key():
            self._keys[-1] = text  # JSON's keys are strings, whatever they look like
            return
        if event.implicit[0]:
            self._add(read_scalar(text))
            return
        if event.tag is not None and event.tag not in _STRING_TAGS and not event.implicit[1]:
            self._refuse("yaml_tag", f"The tag `{event.tag}` is not accepted.")
        self._add(text)

    def _start(self, event: Any) -> None:
        if len(self._open) >= _MAX_NESTING:
            raise RecursionError
        if self._awaits_key():
            mark = event.start_mark
            raise YamlSyntaxError(
                f"Line {mark.line + 1}, column {mark.column + 1}: a key must be a string.",
                "Quote a value that starts with `{` or `[`.",
            )
        if event.tag is not None and event.tag not in _COLLECTION_TAGS:
            self._refuse("yaml_tag", f"The tag `{event.tag}` is not accepted.")
        opened: JsonObject | list[Json]
        opened = RepeatedKeys({}, []) if isinstance(event, yaml.MappingStartEvent) else []
        if self._open:
            self._path.append(self._position())
        self._add(opened)
        self._open.append(opened)
        self._keys.append(None)

    def _awaits_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1], dict) and self._keys[-1] is None

    def _add(self, value: Json) -> None:
        if not self._open:
            self.value = value
            return
        parent = self._open[-1]
        if isinstance(parent, list):
            parent.append(value)
            return
        key = self._keys[-1]
        if key is None:  # an alias where a key should be
            self._keys[-1] = ""
            return
        if key in parent and isinstance(parent, RepeatedKeys):
            parent.repeated.append(key)
        parent[key] = value
        self._keys[-1] = None

    def _position(self) -> str | int:
        """The key or index that the next value gets in the collection that is open."""
        parent = self._open[-1]
        return len(parent) if isinstance(parent, list) else self._keys[-1] or ""

    def _refuse(self, code: str, message: str) -> None:
        path: Path = (*self._path, self._position()) if self._open else ()
        self._faults.append(Fault(pointer(path), code, message, "Write the value out."))
