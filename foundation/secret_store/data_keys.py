"""A tenant's data key, unwrapped, and the values that it encrypts."""

import threading
import time
from typing import ClassVar, Final

from foundation.errors import GraphwrightError
from foundation.ids import TenantId
from foundation.recent import Recent
from foundation.secret_store.base import MasterKeys, Wrapped
from foundation.secret_store.encryption import Tampered, seal, unseal

_KEPT: Final = 4_096
_KEPT_SECONDS: Final = 300.0
_VALUE: Final = "graphwright secret"


class SecretUnreadable(GraphwrightError):
    """The stored value is not what was encrypted for this name of this tenant."""

    code: ClassVar[str] = "secret_unreadable"


class DataKeys:
    """Encrypts and decrypts values, each bound to its tenant and name. Any thread may call.

    Unwrapped data keys are kept in memory, for five minutes at most: unwrapping may be a call over
    the network. Who can read this process's memory can unwrap them as well as it can, so they are
    no worse off there; the bound is for who takes the right to the master key away from it.
    """

    def __init__(self, master_keys: MasterKeys) -> None:
        self._master_keys = master_keys
        self._lock = threading.Lock()
        self._kept = Recent[str, tuple[bytes, float]](_KEPT)

    def ready(self, data_key_id: str) -> bool:
        """Whether the key is at hand, so that using it does not block."""
        return self._get(data_key_id) is not None

    def unwrap(self, tenant: TenantId, data_key_id: str, wrapped: Wrapped) -> bytes:
        """The key. Raises MasterKeyFault and MasterKeyAway."""
        key = self._get(data_key_id)
        if key is None:
            until = time.monotonic() + _KEPT_SECONDS
            key = self._master_keys.unwrap(tenant, wrapped)
            with self._lock:
                self._kept.keep(data_key_id, (key, until))
        return key

    def _get(self, data_key_id: str) -> bytes | None:
        with self._lock:
            kept = self._kept.get(data_key_id)
        return kept[0] if kept is not None and time.monotonic() < kept[1] else None


def seal_value(key: bytes, tenant: TenantId, name: str, value: str) -> bytes:
    return seal(key, value.encode(), _VALUE, tenant, name)


def unseal_value(key: bytes, tenant: TenantId, name: str, sealed: bytes) -> str:
    """The value. Raises SecretUnreadable."""
    try:
        return unseal(key, sealed, _VALUE, tenant, name).decode()
    except Tampered:
        raise SecretUnreadable(
            f"the stored value of the secret {name} was changed",
            hint="Set it again; the operator should find out who can write to the database.",
            secret=name,
        ) from None
