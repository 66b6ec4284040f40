"""Users' JSON inside what Dagster serializes.

Dagster marks its own types with reserved object keys, and reads any object that holds one as such a
type. A run whose config holds ``{"__class__": …}`` from a user can no longer be read, and the UI's
list of runs fails for everybody while it exists. So such keys stay out of it; a contract test
shows that the danger is real.
"""

from collections.abc import Iterator
from typing import Final

from foundation.errors import Fault
from graph_defs.json_values import Json, Path, pointer

RESERVED_KEYS: Final = frozenset(
    {"__class__", "__enum__", "__set__", "__frozenset__", "__mapping_items__"}
)


def reserved_key_faults(value: Json, base: Path) -> list[Fault]:
    """A fault for each object key in ``value`` that Dagster would take for its own."""
    return [
        Fault(
            pointer(path),
            "reserved_name",
            f"the key `{path[-1]}` is reserved",
            "Use another name for this key.",
        )
        for path in _reserved(value, base)
    ]


def may_hold_reserved_key(text: str) -> bool:
    """Whether JSON text that orjson wrote may hold such a key: cheap, and never wrongly no."""
    return "__" in text and any(key in text for key in RESERVED_KEYS)


def _reserved(value: Json, path: Path) -> Iterator[Path]:
    if isinstance(value, dict):
        for key, member in value.items():
            if key in RESERVED_KEYS:
                yield (*path, key)
            yield from _reserved(member, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _reserved(item, (*path, index))
