"""Identifiers: which string is which, and how new ones are made."""

from typing import NewType

import uuid_utils

TenantId = NewType("TenantId", str)
"""A tenant's name; it is its key in every table."""
GraphId = NewType("GraphId", str)
GraphVersionId = NewType("GraphVersionId", str)
RunId = NewType("RunId", str)
NodeId = NewType("NodeId", str)


def new_id() -> str:
    """A UUIDv7 (RFC 9562): ordered by time, so that indexes grow at their end."""
    return str(uuid_utils.uuid7())
