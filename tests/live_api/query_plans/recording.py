"""Connections that note the statements that they are asked."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import pytest
from psycopg.rows import dict_row

from foundation.database import AsyncConnection, AsyncPool, pinned
from foundation.ids import TenantId
from foundation.tenant_pool import TENANT_ROLE, TenantPool


@dataclass(frozen=True)
class Sent:
    statement: str
    parameters: Any
    tenant: TenantId | None = None
    """Whose session it is sent over; None for one of no tenant's."""
    by_key: bool = False
    """Whether its plan is one for all values."""


class Recorder(AsyncConnection):
    """A connection that notes what it is asked."""

    sent: list[Sent]
    by_key: bool

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        self.sent.append(Sent(query, params, self.tenant, self.by_key))
        return await super().execute(query, params, **options)


@dataclass(frozen=True)
class Recorded:
    """Pools whose connections are Recorders."""

    system: AsyncPool
    tenants: TenantPool
    by_key: TenantPool
    sent: list[Sent]


@pytest.fixture
async def recorded(volume_url: str) -> AsyncGenerator[Recorded]:
    sent: list[Sent] = []
    options = {"autocommit": True, "row_factory": dict_row}

    def recording(url: str, *, by_key: bool = False) -> AsyncPool:
        kind = type("Recording", (Recorder,), {"sent": sent, "by_key": by_key})
        return AsyncPool(
            url, kwargs=options, connection_class=kind, min_size=1, max_size=2, open=False
        )

    of_tenant = pinned(volume_url, f"-crole={TENANT_ROLE}")
    async with (
        recording(volume_url) as system,
        recording(of_tenant) as walled,
        recording(of_tenant, by_key=True) as by_key,
    ):
        yield Recorded(system, TenantPool(walled), TenantPool(by_key), sent)
