"""What a master key does. tests/foundation/test_secret_store_contract.py holds each kind to it."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from foundation.errors import GraphwrightError, Unavailable
from foundation.ids import TenantId


class MasterKeyFault(GraphwrightError):
    """The master key cannot be used until an operator has done something."""

    code: ClassVar[str] = "master_key_unusable"


class MasterKeyAway(Unavailable):
    """Whoever keeps the master key does not answer; trying again may help."""

    code: ClassVar[str] = "master_key_unavailable"


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A data key, encrypted under the master key of this id."""

    master_key: str
    data: bytes


class MasterKeys(Protocol):
    """Encrypts data keys, each bound to its tenant: another tenant's does not decrypt.

    There may be several master keys while one takes another's place; new data keys are wrapped
    under the current one. Everything blocks; any thread may call. Each method raises
    :class:`MasterKeyFault` and :class:`MasterKeyAway`, which never repeat a key.
    """

    def wrap(self, tenant: TenantId, data_key: bytes) -> Wrapped:
        """The data key under what is the current master key at this moment, for every process."""
        ...

    def unwrap(self, tenant: TenantId, wrapped: Wrapped) -> bytes:
        """The data key. MasterKeyFault where it was made for another tenant, or changed."""
        ...

    def current(self) -> str:
        """The id of the current master key; the first is made where there is none."""
        ...

    def holds(self, master_key: str) -> bool:
        """Whether there is, or for all one can tell may be, a master key of this id."""
        ...

    def renew(self) -> None:
        """Make a new master key the current one, and keep the others.

        Does nothing where the keeper renews keys by itself, under the same id.
        """
        ...

    def retire(self) -> bool:
        """Forget all but the current master key; False where that is left to the operator."""
        ...

    def close(self) -> None:
        """Let go of connections; the keys are not used again."""
        ...
