"""Rows of :data:`~foundation.secret_store.statements.VALUES`, decrypted."""

import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from foundation.errors import Unavailable
from foundation.ids import TenantId
from foundation.secret_store.base import MasterKeyAway, MasterKeyFault, Wrapped
from foundation.secret_store.data_keys import DataKeys, unseal_value


class SecretsUnavailable(Unavailable):
    """The master key cannot be used; why is the operator's business, and in ``__cause__``."""

    code: ClassVar[str] = "secrets_unavailable"


@dataclass(frozen=True, slots=True)
class Value:
    """What a secret is, and what it was before if that is still good for signatures."""

    current: str = field(repr=False)
    previous: str | None = field(default=None, repr=False)
    previous_until: float = 0.0
    """In the time of ``time.monotonic``."""

    def valid(self) -> tuple[str, ...]:
        """Newest first."""
        if self.previous is None or time.monotonic() >= self.previous_until:
            return (self.current,)
        return (self.current, self.previous)


def are_ready(keys: DataKeys, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether decrypting these rows does not block."""
    return all(
        keys.ready(row["data_key_id"])
        and (row["previous_wrapped"] is None or keys.ready(row["previous_key_id"]))
        for row in rows
    )


def decrypted(
    keys: DataKeys, tenant: TenantId, rows: Iterable[Mapping[str, Any]]
) -> dict[str, Value]:
    """The values by their names. Raises SecretUnreadable, MasterKeyFault and MasterKeyAway."""
    return {row["name"]: _value(keys, tenant, row) for row in rows}


@contextmanager
def translated() -> Generator[None]:
    """Tell tenants no more of the master key than that it is of no use now."""
    try:
        yield
    except (MasterKeyFault, MasterKeyAway) as error:
        raise SecretsUnavailable(
            "secrets cannot be used at present", hint="The operator finds out why in the log."
        ) from error


def _value(keys: DataKeys, tenant: TenantId, row: Mapping[str, Any]) -> Value:
    name = row["name"]
    wrapped = Wrapped(row["master_key"], row["wrapped"])
    key = keys.unwrap(tenant, row["data_key_id"], wrapped)
    current = unseal_value(key, tenant, name, row["value"])
    if row["previous_wrapped"] is None:  # or it is not good any more
        return Value(current)
    wrapped = Wrapped(row["previous_master_key"], row["previous_wrapped"])
    key = keys.unwrap(tenant, row["previous_key_id"], wrapped)
    previous = unseal_value(key, tenant, name, row["previous"])
    return Value(current, previous, time.monotonic() + row["previous_seconds"])
