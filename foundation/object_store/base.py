"""What an object store does. tests/foundation/test_object_store_contract.py holds each to it."""

from collections.abc import Collection, Iterator
from typing import ClassVar, Protocol

from foundation.errors import NotFound, Unavailable


class ObjectStoreAway(Unavailable):
    """The object store does not answer, or refuses; trying again may help."""

    code: ClassVar[str] = "object_store_unavailable"


class ObjectMissing(NotFound):
    """There is no object of this key, in a store that does answer."""

    code: ClassVar[str] = "object_missing"


class ObjectStore(Protocol):
    """Whole values of bytes, by keys such as ``outputs/acme/…``: names joined by ``/``.

    A key is written once, by whoever made it up. Everything blocks, so none of it is for an event
    loop; any thread may call. Each method raises :class:`ObjectStoreAway`.
    """

    def put(self, key: str, data: bytes) -> None:
        """Store a value. When this returns, it is there as a whole and survives a power cut.

        When it raises, there may be something unfinished, which :meth:`keys` lists and
        :meth:`delete` removes.
        """
        ...

    def get(self, key: str) -> bytes:
        """The value. Raises :class:`ObjectMissing`."""
        ...

    def link(self, key: str, seconds: int, content_type: str) -> str | None:
        """A URL at which anybody may GET the value for so long; None where the store has none.

        It answers with this content type. Whether there is such an object is not looked at.
        """
        ...

    def keys(self, folder: str) -> Iterator[str]:
        """All keys that begin with these names, as ``outputs/acme`` does; none if there are none.

        Among them is what a process that was killed left unfinished.
        """
        ...

    def delete(self, keys: Collection[str]) -> None:
        """Remove these, those that are gone already too. When it raises, some may be left."""
        ...

    def close(self) -> None:
        """Let go of connections; the store is not used again."""
        ...
