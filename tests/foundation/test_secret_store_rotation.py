"""Rotating the master key, by which the data keys of all tenants are wrapped."""

import asyncio
import threading
from pathlib import Path

import psycopg
import pytest

from foundation.errors import Conflict
from foundation.ids import TenantId
from foundation.secret_store import MasterKeyFault, SecretStore, Wrapped, statements
from foundation.secret_store.key_file import KeyFile
from foundation.tenant_pool import TenantPool
from tests.foundation.conftest import RotateFor, StoreFor, mount, read, sql, until_waiting

pytestmark = pytest.mark.anyio

ACME, OTHER = TenantId("acme"), TenantId("other")
HUSH = "hush-hush-5c1e"


async def test_rotation_wraps_every_data_key_anew(
    store: SecretStore,
    store_for: StoreFor,
    rotate_for: RotateFor,
    database_url: str,
    key_file: Path,
) -> None:
    tenants = [TenantId(f"tenant-{n}") for n in range(230)]  # more than two batches
    for tenant in tenants:
        await store.put(tenant, "key", f"of {tenant}", "ann")
    values = "SELECT tenant, value FROM graphwright.secrets ORDER BY 1"
    before, old = sql(database_url, values), read(key_file)
    done = await rotate_for()
    assert (done.rewrapped, done.retired) == (230, True)
    assert read(key_file).split()[0] == done.master_key
    assert len(read(key_file).splitlines()) == 1
    assert old.split()[0] != done.master_key
    used = sql(database_url, "SELECT DISTINCT master_key FROM graphwright.data_keys")
    assert used == [(done.master_key,)]
    assert sql(database_url, values) == before
    for each in (store, store_for()):
        for tenant in (tenants[0], tenants[-1]):
            assert await each.reveal(tenant, ["key"]) == {"key": f"of {tenant}"}
    await store.put(OTHER, "key", "later", "ann")  # by a process that has seen the old file only
    assert await store_for().reveal(OTHER, ["key"]) == {"key": "later"}


async def test_secrets_are_set_while_the_master_key_is_rotated(
    store_for: StoreFor, rotate_for: RotateFor, database_url: str
) -> None:
    """Each round a store that has read nothing but the file before makes new data keys."""
    names = [TenantId(f"t{n}") for n in range(60)]

    async def put_all() -> None:
        stores = [store_for() for _ in range(3)]
        for number, tenant in enumerate(names):
            await stores[number % 3].put(tenant, "key", tenant, "ann")

    async def rotate_often() -> None:
        for _ in range(10):
            await rotate_for()

    await asyncio.gather(put_all(), rotate_often())
    await rotate_for()
    for tenant in names:
        assert await store_for().reveal(tenant, ["key"]) == {"key": tenant}
    assert len(sql(database_url, "SELECT DISTINCT master_key FROM graphwright.data_keys")) == 1


class Slow(KeyFile):
    """Has wrapped, and does not come to say so before it is let go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.wrapped, self.go_on = threading.Event(), threading.Event()

    def wrap(self, tenant: TenantId, data_key: bytes) -> Wrapped:
        done = super().wrap(tenant, data_key)
        self.wrapped.set()
        self.go_on.wait()
        return done


async def test_a_rotation_waits_for_who_has_wrapped_and_not_stored(
    tenants: TenantPool,
    store_for: StoreFor,
    rotate_for: RotateFor,
    database_url: str,
    key_file: Path,
) -> None:
    slow = Slow(key_file)
    put = asyncio.create_task(SecretStore(tenants, slow).put(ACME, "key", HUSH, "ann"))
    await asyncio.to_thread(slow.wrapped.wait)
    old = read(key_file)
    rotation = asyncio.create_task(rotate_for())
    try:
        await until_waiting(database_url, 1, rotation)
        assert old in read(key_file)
    finally:
        slow.go_on.set()
    await put
    assert (await rotation).rewrapped == 1
    assert old not in read(key_file)
    assert await store_for().reveal(ACME, ["key"]) == {"key": HUSH}


async def test_a_rotation_that_was_cut_off_is_finished(
    store: SecretStore, store_for: StoreFor, rotate_for: RotateFor, key_file: Path
) -> None:
    await store.put(ACME, "key", HUSH, "ann")
    keys = KeyFile(key_file)
    keys.renew()
    await store.put(OTHER, "key", HUSH, "ann")
    cut, current = read(key_file), keys.current()
    done = await rotate_for()
    assert (done.master_key, done.rewrapped, done.retired) == (current, 1, True)
    assert read(key_file) == cut.splitlines(keepends=True)[0]
    assert await store_for().valid(ACME, "key") == (HUSH,)
    assert (await rotate_for()).master_key != current


async def test_a_mounted_file_is_rotated_by_its_keeper(
    store: SecretStore, store_for: StoreFor, rotate_for: RotateFor, key_file: Path, tmp_path: Path
) -> None:
    await store.put(ACME, "key", HUSH, "ann")
    mount(key_file, read(key_file), 0o400)
    with pytest.raises(MasterKeyFault, match="read-only"):
        await rotate_for()
    old = read(key_file)
    new = KeyFile(tmp_path / "made elsewhere").current()
    added = read(tmp_path / "made elsewhere")
    mount(key_file, added + old, 0o440)
    done = await rotate_for()
    assert (done.master_key, done.rewrapped, done.retired) == (new, 1, False)
    mount(key_file, added, 0o440)
    for each in (store, store_for()):
        assert await each.valid(ACME, "key") == (HUSH,)


async def test_one_rotation_at_a_time(
    store: SecretStore, rotate_for: RotateFor, database_url: str, key_file: Path
) -> None:
    await store.put(ACME, "key", HUSH, "ann")
    before = read(key_file)
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute(statements.BEGIN_ROTATION)
        with pytest.raises(Conflict):
            await rotate_for()
        assert read(key_file) == before
        other.execute(statements.END_ROTATION)
    await rotate_for()
    assert read(key_file) != before
