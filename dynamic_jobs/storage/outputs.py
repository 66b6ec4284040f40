"""The rows of node outputs: the output itself where it is small, else where it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from dynamic_jobs.storage.statements import INSERT_OBJECTS, INSERT_OUTPUTS
from foundation.database import Connection
from foundation.ids import NodeId, RunId, TenantId


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """Where in the object store an output is, and how many bytes of JSON it has."""

    key: str
    size: int


Stored: TypeAlias = str | ObjectRef
"""What a row holds: JSON text, or where that is."""


def insert_outputs(
    connection: Connection, rows: Mapping[tuple[TenantId, RunId, NodeId], Stored]
) -> None:
    """Write a row for each of these outputs, over one that there may be."""
    texts = [(*key, stored) for key, stored in rows.items() if isinstance(stored, str)]
    if texts:
        columns = [list(column) for column in zip(*texts, strict=True)]
        connection.execute(INSERT_OUTPUTS, columns)
    objects = [(*key, o.key, o.size) for key, o in rows.items() if isinstance(o, ObjectRef)]
    if objects:
        columns = [list(column) for column in zip(*objects, strict=True)]
        connection.execute(INSERT_OBJECTS, columns)
