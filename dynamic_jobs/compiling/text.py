"""Dagster's ``serialize_value``, several times as fast for the snapshots of large graphs.

A snapshot's id is a hash of its text, so ours must be Dagster's to the byte. Dagster goes through a
generator and a wrapper for each object; here the field names of a class are written once, and so
are equal objects of some classes: the handle of a node stands in every step that needs it. What is
rare is left to Dagster. tests/dynamic_jobs/test_compile_order.py compares the two.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from json.encoder import encode_basestring_ascii
from typing import Any, Final, TypeAlias, cast

from dagster._core.definitions import NodeHandle
from dagster._core.execution.plan.inputs import FromStepOutput
from dagster._core.execution.plan.outputs import StepOutputHandle, StepOutputProperties
from dagster._core.snap.dep_snapshot import OutputHandleSnap
from dagster._serdes import serialize_value
from dagster_shared.serdes import serdes

_REPEATED: Final = (
    FromStepOutput,
    NodeHandle,
    OutputHandleSnap,
    StepOutputHandle,
    StepOutputProperties,
)
"""They hold strings and booleans, so equal ones have equal texts."""

_WHITELIST: Final = serdes._WHITELIST_MAP  # pyright: ignore[reportPrivateUsage]

_Write: TypeAlias = Callable[[Any], str]


def text_of(value: Any) -> str:
    """What ``serialize_value`` returns."""
    return _Writer().text(value)


@dataclass(frozen=True, slots=True)
class _Field:
    before: str
    """What stands before its value."""
    position: int
    custom: serdes.FieldSerializer | None
    skipped: tuple[Any, ...]
    """The values with which it is left out."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """How objects of a class are written."""

    before: str
    fields: tuple[_Field, ...]


_shapes: Final[dict[type, _Shape | None]] = {}
"""Of the classes met so far; None where Dagster is to write them. A class's never changes."""


class _Writer:
    """Writes one value. Keeps what it has written of :data:`_REPEATED`."""

    def __init__(self) -> None:
        self._kept: dict[type, dict[Any, str]] = {kind: {} for kind in _REPEATED}
        self._writes: dict[type, _Write] = {
            str: encode_basestring_ascii,
            bool: ("false", "true").__getitem__,
            int: int.__repr__,
            type(None): lambda _: "null",
            list: self._list,
            dict: self._dict,
        }

    def text(self, value: Any) -> str:
        kind = cast("type[object]", type(value))
        kept = self._kept.get(kind)
        if kept is None:
            return (self._writes.get(kind) or self._learn(kind, value))(value)
        text = kept.get(value)
        if text is None:
            text = (self._writes.get(kind) or self._learn(kind, value))(value)
            kept[value] = text
        return text

    def _list(self, items: list[Any]) -> str:
        return f"[{', '.join(map(self.text, items))}]"

    def _dict(self, members: dict[Any, Any]) -> str:
        if not all(type(key) is str for key in members):
            return serialize_value(members)
        texts = [f"{encode_basestring_ascii(k)}: {self.text(members[k])}" for k in sorted(members)]
        return f"{{{', '.join(texts)}}}"

    def _object(self, shape: _Shape, value: tuple[Any, ...]) -> str:
        members = tuple(
            cast("Iterator[Any]", tuple.__iter__(value))
        )  # records define another __iter__
        texts = [shape.before]
        for field in shape.fields:
            member = members[field.position]
            if field.custom is not None:
                member = field.custom.pack(member, _WHITELIST, "")
            if not field.skipped or member not in field.skipped:
                texts.append(field.before + self.text(member))
        return "".join(texts) + "}"

    def _learn(self, kind: type[Any], example: Any) -> _Write:
        if issubclass(kind, Enum):
            self._kept[kind] = {}
        if kind not in _shapes:
            _shapes[kind] = _shape(kind, example)
        shape = _shapes[kind]
        write = serialize_value if shape is None else partial(self._object, shape)
        self._writes[kind] = write
        return write


def _shape(kind: type[Any], example: Any) -> _Shape | None:
    """``example`` is an object of the class."""
    serializer = cast("Any", _WHITELIST.object_serializers.get(kind.__name__))
    if serializer is None or not _is_plain(serializer):
        return None
    fields: list[_Field] = []
    for position, name in enumerate(serializer.object_as_mapping(example)):
        stored = serializer.storage_field_names.get(name, name)
        skipped: tuple[Any, ...] = ()
        if name in serializer.skip_when_empty_fields:
            skipped = serdes.EMPTY_VALUES_TO_SKIP
        elif name in serializer.skip_when_none_fields:
            skipped = (None,)
        before = f", {encode_basestring_ascii(stored)}: "
        fields.append(_Field(before, position, serializer.field_serializers.get(name), skipped))
    fields.sort(key=lambda field: field.before)
    before = f'{{"__class__": {encode_basestring_ascii(serializer.get_storage_name())}'
    if any(field.before < ', "__class__"' for field in fields):
        return None
    return _Shape(before, tuple(fields))


def _is_plain(serializer: Any) -> bool:
    """Whether it does to a value what ``_Writer._object`` does."""
    base: Any = serdes.NamedTupleSerializer
    kind = cast("Any", type(serializer))
    hooks = ("object_as_mapping", "before_pack", "pack_items")
    return (
        isinstance(serializer, base)
        and not serializer.old_fields
        and all(getattr(kind, hook) is getattr(base, hook) for hook in hooks)
    )
