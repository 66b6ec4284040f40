"""Webhook receivers for tests, and triggers for them to find."""

import asyncio
import json
import secrets
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psycopg

from foundation.database import async_pool, connect
from foundation.ids import TenantId, new_id
from foundation.secret_store import SecretStore, master_keys
from foundation.settings import Limits, Settings
from foundation.tenant_pool import TenantPool
from live_api.hooks import create_app
from live_api.serving import HttpServer


@contextmanager
def receiving(settings: Settings, limits: Limits | None = None) -> Generator[str]:
    """The URL of a receiver until the block ends; then it stops in order."""
    server = HttpServer(create_app(settings, limits or Limits()), "The webhook receiver")
    thread = threading.Thread(target=server.run, name="hooks", daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the receiver did not start"
            thread.join(0.01)
        yield f"{server.url}/hooks"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the receiver did not stop"


def set_secret(
    settings: Settings, value: str, *, tenant: str = "acme", name: str = "key", keep: float = 0
) -> None:
    """Set a tenant's secret; the one before stays good for ``keep`` seconds."""

    async def put() -> None:
        async with async_pool(settings.database_url, size=1) as pool:
            store = SecretStore(TenantPool(pool), master_keys(settings))
            await store.put(TenantId(tenant), name, value, "ann", keep_previous_seconds=keep)

    asyncio.run(put())


def add_trigger(settings: Settings, scheme: str, *, tenant: str = "acme", **config: Any) -> str:
    """The address of a new webhook, with the secret ``key`` where its scheme takes one."""
    address, trigger_id = secrets.token_hex(16), new_id()
    secret = {} if scheme == "none" else {"secret": "key"}
    full = json.dumps({"type": "webhook", "scheme": scheme, **secret, **config})
    with psycopg.connect(settings.database_url) as connection:
        connection.execute(
            "INSERT INTO graphwright.triggers"
            " (tenant, trigger_id, graph_id, name, type, config, address)"
            " VALUES (%s, %s, %s, %s, 'webhook', %s, %s)",
            (tenant, trigger_id, new_id(), f"hook_{address[:8]}", full, address),
        )
        connection.execute(
            "INSERT INTO graphwright.webhook_addresses VALUES (%s, %s, %s)",
            (address, tenant, trigger_id),
        )
    return address


def deliveries(settings: Settings) -> list[dict[str, Any]]:
    """All that are in the inbox, oldest first."""
    with connect(settings.database_url) as connection:
        query = "SELECT * FROM graphwright.deliveries ORDER BY delivery_id"
        return connection.execute(query).fetchall()


def queued(settings: Settings) -> int:
    """How many deliveries wait to be dispatched."""
    with psycopg.connect(settings.database_url) as connection:
        row = connection.execute("SELECT count(*) FROM graphwright.delivery_queue").fetchone()
    assert row is not None
    return row[0]
