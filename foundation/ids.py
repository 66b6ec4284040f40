"""Identifiers: which string is which, and how new ones are made."""

import uuid
from datetime import datetime
from typing import NewType

import uuid_utils

TenantId = NewType("TenantId", str)
"""A tenant's name; it is its key in every table."""
GraphId = NewType("GraphId", str)
GraphVersionId = NewType("GraphVersionId", str)
TriggerId = NewType("TriggerId", str)
DeliveryId = NewType("DeliveryId", str)
RunId = NewType("RunId", str)
NodeId = NewType("NodeId", str)


def new_id() -> str:
    """A UUIDv7 (RFC 9562): ordered by time, so that indexes grow at their end."""
    return str(uuid_utils.uuid7())


def first_id_of(at: datetime) -> str:
    """A bound: the ids that :func:`new_id` makes from this moment on do not come before it."""
    return str(uuid.UUID(int=max(0, int(at.timestamp() * 1_000)) << 80))
