"""Events as JSON, as ``dagster._serdes.serialize_value`` would have it, several times faster.

What comes out reads back with ``deserialize_value`` as an equal object; only white space, the order
of keys and the escaping of letters differ. Dagster walks an object by rules of its class that it
looks up for each field; here the rules of a class are looked up once. They are Dagster's own
(``WhitelistMap.object_serializers``), and whatever goes beyond them (a class with a packing of its
own, a value that JSON or orjson does not have) is left to Dagster, with the whole event.

This module knows Dagster's private serdes; tests/dynamic_jobs/test_storage_serializing.py is the
contract.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from math import isfinite
from typing import Any, Final, NamedTuple, TypeAlias, cast

import orjson
from dagster import EventLogEntry
from dagster._serdes import serialize_value
from dagster_shared.serdes.serdes import (
    _WHITELIST_MAP as WHITELIST,  # pyright: ignore[reportPrivateUsage]
)
from dagster_shared.serdes.serdes import (
    EMPTY_VALUES_TO_SKIP,
    FieldSerializer,
    NamedTupleSerializer,
    ObjectSerializer,
)


class _BeyondUs(TypeError):
    """Of a kind that Dagster must serialize itself."""


_Packer: TypeAlias = Callable[[Any], Any]


class _Field(NamedTuple):
    stored_as: str
    serializer: FieldSerializer | None
    unless: tuple[Any, ...]
    """Left out if its value is one of these."""


def serialize_event(entry: EventLogEntry) -> str:
    """The entry's JSON text."""
    try:
        return orjson.dumps(_pack(entry)).decode()
    except TypeError:  # also orjson's own: a huge integer, a lone surrogate, a key that is no text
        return serialize_value(entry)


def _pack(value: Any) -> Any:
    kind = cast("type[Any]", type(value))
    packer = _PACKERS.get(kind)
    if packer is None:
        packer = _PACKERS[kind] = _packer_of(kind)
    return packer(value)


def _same(value: Any) -> Any:
    return value


def _pack_float(value: float) -> float:
    if not isfinite(value):  # orjson would write null
        raise _BeyondUs
    return value


def _pack_items(value: Iterable[Any]) -> list[Any]:
    return [_pack(item) for item in value]


def _pack_dict(value: dict[str, Any]) -> dict[str, Any]:
    return {
        key: item if type(item) is str else _pack(item)  # tags and metadata are text mostly
        for key, item in value.items()
    }


_PACKERS: Final[dict[type[Any], _Packer]] = {
    type(None): _same,
    bool: _same,
    int: _same,
    str: _same,
    float: _pack_float,
    list: _pack_items,
    tuple: _pack_items,
    dict: _pack_dict,
}
"""By class; those of Dagster's classes are added when they are first met."""


def _packer_of(kind: type[Any]) -> _Packer:
    name = kind.__name__
    if issubclass(kind, Enum):
        enum = WHITELIST.enum_serializers.get(name)
        if enum is None or enum.klass is not kind:
            return _refuse
        return {
            member: {"__enum__": enum.pack(member, WHITELIST, "")} for member in kind
        }.__getitem__
    serializers = cast("Mapping[str, ObjectSerializer[Any]]", WHITELIST.object_serializers)
    found = serializers.get(name)
    if found is None or found.klass is not kind or not _is_plain(found):
        return _refuse
    return _object_packer(kind, found)


def _refuse(value: object) -> Any:
    raise _BeyondUs


def _is_plain(serializer: ObjectSerializer[Any]) -> bool:
    """Whether it packs just the fields of a named tuple, by the rules of the class."""
    kind = type(serializer)
    return (
        isinstance(serializer, NamedTupleSerializer)
        and kind.pack_items is ObjectSerializer.pack_items
        and kind.before_pack is ObjectSerializer.before_pack
        and kind.object_as_mapping is NamedTupleSerializer.object_as_mapping
    )


def _object_packer(kind: type[Any], serializer: ObjectSerializer[Any]) -> _Packer:
    head = {"__class__": serializer.get_storage_name()}
    tail = dict(serializer.old_fields)
    fields = [_field(name, serializer) for name in _names(kind)]
    names = [field.stored_as for field in fields]

    def pack(value: Any) -> dict[str, Any]:
        packed: dict[str, Any] = dict(head)
        for name, inner in zip(names, _values(value), strict=True):
            packed[name] = inner if type(inner) is str else _pack(inner)
        packed.update(tail)
        return packed

    def pack_by_rules(value: Any) -> dict[str, Any]:
        packed: dict[str, Any] = dict(head)
        for field, item in zip(fields, _values(value), strict=True):
            inner = item
            if field.serializer is not None:
                inner = field.serializer.pack(inner, whitelist_map=WHITELIST, descent_path="")
            if not field.unless or inner not in field.unless:
                packed[field.stored_as] = _pack(inner)
        packed.update(tail)
        return packed

    return pack_by_rules if any(field.serializer or field.unless for field in fields) else pack


_values = cast("Callable[[Any], Iterable[Any]]", tuple.__iter__)
"""Of a named tuple's fields: a `@record` does not let itself be iterated over."""


def _names(kind: type[Any]) -> list[str]:
    """The fields as their constructor calls them, in the order of the tuple."""
    # A `@record` may store a field under another name than its constructor takes.
    renamed: dict[str, str] = getattr(kind, "__field_remap__", {})
    fields = cast("tuple[str, ...]", getattr(kind, "_fields"))  # noqa: B009
    return [renamed.get(name, name) for name in fields]


def _field(name: str, serializer: ObjectSerializer[Any]) -> _Field:
    unless: tuple[Any, ...] = ()
    if name in serializer.skip_when_empty_fields:
        unless = EMPTY_VALUES_TO_SKIP
    elif name in serializer.skip_when_none_fields:
        unless = (None,)
    stored_as = serializer.storage_field_names.get(name, name)
    return _Field(stored_as, serializer.field_serializers.get(name), unless)
