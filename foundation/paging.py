"""Pages of a list: keyset pagination behind an opaque cursor."""

import base64
import binascii
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from foundation.errors import Fault, Invalid

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list; ``next_cursor`` asks for the following ones, None after the last."""

    items: Sequence[T]
    next_cursor: str | None


def encode_cursor(last_id: str) -> str:
    """The cursor of the page after the item with this UUID."""
    return base64.urlsafe_b64encode(uuid.UUID(last_id).bytes).rstrip(b"=").decode()


def decode_cursor(cursor: str) -> str:
    """The UUID of the item before the page. Raises Invalid for what is no cursor of ours."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return str(uuid.UUID(bytes=raw))
    except (binascii.Error, ValueError):
        fault = Fault(
            "/cursor",
            "bad_cursor",
            "This is no cursor of this list.",
            "Send the `next_cursor` of a page unchanged, or nothing for the first page.",
        )
        raise Invalid("The query has faults.", [fault]) from None
