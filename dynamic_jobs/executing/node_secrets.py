"""The values of the secrets that nodes read, fetched just before each attempt."""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

import psycopg

from dynamic_jobs.executing.redacted_logs import RedactedLogs
from dynamic_jobs.executing.redaction import MIN_LENGTH, Redactor, is_too_short
from foundation.database import AsyncPool
from foundation.errors import GraphwrightError, Unavailable
from foundation.ids import TenantId
from foundation.settings import Settings
from foundation.tenant_pool import TenantPool, tenant_sessions
from node_types.base import NodeError

if TYPE_CHECKING:
    from foundation.secret_store import MasterKeys, SecretStore

_log = logging.getLogger(__name__)

_CONNECTIONS: Final = 2
_TRIES: Final = 3
"""As many as may find a connection that a server's restart has broken, and one."""


class MissingSecret(GraphwrightError):
    """The tenant has no secret of this name. It may be set later; no attempt waits for that."""

    code: ClassVar[str] = "missing_secret"
    status: ClassVar[int] = 422


class SecretTooShort(GraphwrightError):
    """The value could not be struck out of what the node produces: it stands in any text."""

    code: ClassVar[str] = "secret_too_short"
    status: ClassVar[int] = 422


class SecretsAway(NodeError):
    """The secrets cannot be read now."""

    code: ClassVar[str] = "secrets_unavailable"


@dataclass(frozen=True, slots=True)
class Revealed:
    """Values of secrets by their names, and what strikes them out of all that comes of them."""

    values: dict[str, str] = field(repr=False)
    redactor: Redactor


class NodeSecrets:
    """Reads secrets for the nodes of one process, on its event loop.

    Nothing is opened before a node asks for a secret: most processes never meet one.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: tuple[SecretStore, AsyncPool, MasterKeys] | None = None
        self._lock = asyncio.Lock()
        self._logs = RedactedLogs()

    async def reveal(self, tenant: TenantId, names: Collection[str]) -> Revealed:
        """The value of each of these secrets. From then on no log of the process tells them.

        Raises :class:`MissingSecret`, :class:`SecretTooShort` and :class:`SecretsAway`, and what
        ``SecretStore.reveal`` raises where a value cannot be decrypted.
        """
        found = await self._read(tenant, names)
        missing = sorted(set(names) - found.keys())
        if missing:
            raise MissingSecret(
                f"there is no secret {', '.join(missing)}",
                hint=f"Run `graphwright secret set {missing[0]}`, then run the node again.",
            )
        for name in sorted(filter(lambda name: is_too_short(found[name]), found)):
            raise SecretTooShort(
                f"the secret {name} has less than {MIN_LENGTH} characters",
                hint="So short a value cannot be kept out of logs and outputs; set a longer one, "
                "or pass it as a param if it is none to hide.",
            )
        redactor = await asyncio.to_thread(Redactor, found.values())  # a long one takes a while
        self._logs.watch(redactor)
        return Revealed(found, redactor)

    def close(self) -> None:
        """No node is under way any more: let the logs be."""
        self._logs.close()

    async def disconnect(self) -> None:
        """Close what was opened."""
        if self._opened is not None:
            _, pool, keys = self._opened
            self._opened = None
            await pool.close()
            keys.close()

    async def _read(self, tenant: TenantId, names: Collection[str]) -> dict[str, str]:
        store = await self._store()
        fault: Exception | None = None
        for _ in range(_TRIES):
            try:
                return dict(await store.reveal(tenant, names))
            except (psycopg.OperationalError, psycopg.InterfaceError, Unavailable) as error:
                fault = error
        _log.warning("secrets cannot be read", exc_info=fault)
        raise SecretsAway(
            "the secrets of the node cannot be read at the moment",
            hint="The worker's log says why. Run the node again.",
        )

    async def _store(self) -> "SecretStore":
        async with self._lock:
            if self._opened is None:
                from foundation.secret_store import SecretStore, master_keys

                keys = master_keys(self._settings)
                pool = tenant_sessions(self._settings.database_url, size=_CONNECTIONS)
                await pool.open()
                self._opened = SecretStore(TenantPool(pool), keys), pool, keys
            return self._opened[0]
