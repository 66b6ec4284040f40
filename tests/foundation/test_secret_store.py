"""Secrets of tenants, on a real database."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import Invalid, NotFound, TooLarge
from foundation.ids import TenantId
from foundation.secret_store import (
    MasterKeyFault,
    SecretReader,
    SecretStore,
    SecretsUnavailable,
    SecretUnreadable,
    master_keys,
)
from foundation.secret_store.encryption import Tampered, seal, unseal
from foundation.secret_store.values import Value
from foundation.settings import Settings
from foundation.tenant_pool import BlockingTenantPool, blocking_tenant_sessions
from tests.foundation.conftest import RotateFor, StoreFor, mount, read, sql, until_waiting

pytestmark = pytest.mark.anyio

ACME, OTHER = TenantId("acme"), TenantId("other")
HUSH = "hush-hush-5c1e"


async def test_a_secret_is_set_read_changed_and_removed(
    store: SecretStore, store_for: StoreFor
) -> None:
    info, created = await store.put(ACME, "api_key", HUSH, "ann")
    assert created
    assert (info.name, info.version, info.author, info.previous_until) == (
        "api_key", 1, "ann", None,
    )  # fmt: skip
    assert await store.get(ACME, "api_key") == info
    changed, created = await store.put(ACME, "api_key", "ünd☃", "bob")
    assert not created
    assert (changed.version, changed.author) == (2, "bob")
    assert changed.created_at == info.created_at < changed.updated_at
    for each in (store, store_for()):
        assert await each.reveal(ACME, ["api_key", "absent"]) == {"api_key": "ünd☃"}
        assert await each.valid(ACME, "api_key") == ("ünd☃",)
    await store.delete(ACME, "api_key")
    for each in (store, store_for()):
        assert await each.reveal(ACME, ["api_key"]) == {}
        assert await each.valid(ACME, "api_key") == ()
    for work in (store.get(ACME, "api_key"), store.delete(ACME, "api_key")):
        with pytest.raises(NotFound, match="api_key"):
            await work


async def test_tenants_see_their_own(store: SecretStore, store_for: StoreFor) -> None:
    await store.put(ACME, "key", HUSH, "ann")
    await store.put(ACME, "other_key", HUSH, "ann")
    await store.put(OTHER, "key", "theirs", "eve")
    for each in (store, store_for()):
        assert await each.reveal(OTHER, ["key", "other_key"]) == {"key": "theirs"}
        assert await each.valid(OTHER, "other_key") == ()
        assert [info.author for info in (await each.list(OTHER, 10)).items] == ["eve"]
        with pytest.raises(NotFound):
            await each.get(OTHER, "other_key")
        with pytest.raises(NotFound):
            await each.delete(OTHER, "other_key")
    assert await store_for().reveal(ACME, ["key", "other_key"]) == {"key": HUSH, "other_key": HUSH}


async def test_threads_read_the_same(
    store: SecretStore, database_url: str, settings: Settings
) -> None:
    await store.put(ACME, "key", HUSH, "ann")
    await store.put(OTHER, "theirs", HUSH, "ann")
    with blocking_tenant_sessions(database_url) as sessions:
        reader = SecretReader(BlockingTenantPool(sessions), master_keys(settings))
        names = ["key", "theirs", "absent"]
        assert await asyncio.to_thread(reader.reveal, ACME, names) == {"key": HUSH}


async def test_the_previous_value_stays_good_for_a_while(
    store: SecretStore, store_for: StoreFor, database_url: str
) -> None:
    await store.put(ACME, "key", "first", "ann")
    info, _ = await store.put(ACME, "key", "second", "ann", keep_previous_seconds=3600)
    assert info.previous_until is not None
    assert (info.previous_until - info.updated_at).total_seconds() == 3600
    for each in (store, store_for()):
        assert await each.valid(ACME, "key") == ("second", "first")
        assert await each.reveal(ACME, ["key"]) == {"key": "second"}
    sql(database_url, "UPDATE graphwright.secrets SET previous_until = now()")
    assert await store_for().valid(ACME, "key") == ("second",)
    assert (await store_for().get(ACME, "key")).previous_until is None


async def test_a_kept_value_forgets_its_previous_one_in_time() -> None:
    assert Value("new", "old", previous_until=float("inf")).valid() == ("new", "old")
    assert Value("new", "old", previous_until=0.0).valid() == ("new",)


async def test_a_repeated_request_changes_nothing(store: SecretStore, store_for: StoreFor) -> None:
    await store.put(ACME, "key", "first", "ann")
    info, _ = await store.put(ACME, "key", "second", "ann", keep_previous_seconds=3600)
    again, created = await store.put(ACME, "key", "second", "bob", keep_previous_seconds=3600)
    assert (again, created) == (info, False)
    assert await store_for().valid(ACME, "key") == ("second", "first")
    ended, _ = await store.put(ACME, "key", "second", "bob")
    assert ended == replace(info, previous_until=None)
    assert await store_for().valid(ACME, "key") == ("second",)
    _, created = await store.put(ACME, "new", "1", "ann")
    _, created_again = await store.put(ACME, "new", "1", "ann")
    assert (created, created_again) == (True, False)


async def test_a_request_that_is_repeated_too_soon_changes_nothing(
    store: SecretStore, store_for: StoreFor, database_url: str
) -> None:
    await store.put(ACME, "key", "first", "ann")
    with psycopg.connect(database_url) as blocker:
        blocker.execute("SELECT FROM graphwright.secrets FOR UPDATE")
        both = asyncio.gather(
            *(
                store_for().put(ACME, "key", "second", "ann", keep_previous_seconds=60)
                for _ in range(2)
            )
        )
        await until_waiting(database_url, 2, both)
        blocker.rollback()
        assert {info.version for info, _ in await both} == {2}
    assert await store_for().valid(ACME, "key") == ("second", "first")


@pytest.mark.parametrize("value", ["x", " \n\x00\t", "☃" * 21_845, "x" * 65_536])
async def test_values_come_back_as_they_were(
    store: SecretStore, store_for: StoreFor, value: str
) -> None:
    await store.put(ACME, "key", value, "ann")
    assert await store_for().reveal(ACME, ["key"]) == {"key": value}


@pytest.mark.parametrize(
    ("value", "kind"),
    [("", Invalid), ("hush\ud800", Invalid), ("hush" * 16_385, TooLarge), ("☃" * 21_846, TooLarge)],
)
async def test_other_values_are_refused_and_not_repeated(
    store: SecretStore, value: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind) as fault:
        await store.put(ACME, "key", value, "ann")
    assert "hush" not in str(fault.value)
    assert (await store.list(ACME, 10)).items == []


async def test_pages_of_a_list(store: SecretStore) -> None:
    names = ["B", "_", "a", "a1", "b"]
    for name in reversed(names):
        await store.put(ACME, name, HUSH, "ann")
    found: list[str] = []
    cursor: str | None = None
    for size in (2, 2, 1):
        page = await store.list(ACME, 2, cursor)
        assert len(page.items) == size
        found += [info.name for info in page.items]
        cursor = page.next_cursor
    assert (found, cursor) == (names, None)
    assert (await store.list(ACME, 5)).next_cursor is None
    for bad in ("", "§", "YQ==YQ", "YSA", "x" * 1001):
        with pytest.raises(Invalid):
            await store.list(ACME, 2, bad)


async def test_first_secrets_that_are_set_at_once_can_all_be_read(
    store_for: StoreFor, database_url: str
) -> None:
    stores = [store_for() for _ in range(8)]
    done = await asyncio.gather(
        *(store.put(ACME, f"key{n}", f"value{n}", "ann") for n, store in enumerate(stores)),
        *(store.put(ACME, "one", f"one{n}", "ann") for n, store in enumerate(stores)),
    )
    assert [created for info, created in done if info.name == "one"].count(True) == 1
    assert (await stores[0].get(ACME, "one")).version == 8
    found = await store_for().reveal(ACME, ["one", *(f"key{n}" for n in range(8))])
    assert found.pop("one").startswith("one")  # type: ignore[attr-defined]
    assert found == {f"key{n}": f"value{n}" for n in range(8)}
    await stores[0].put(ACME, "later", HUSH, "ann")
    oldest = "SELECT data_key_id FROM graphwright.data_keys ORDER BY 1 LIMIT 1"
    used = "SELECT data_key_id FROM graphwright.secrets WHERE name = 'later'"
    assert sql(database_url, used) == sql(database_url, oldest)


@pytest.mark.parametrize(
    "swap",
    [
        "UPDATE graphwright.secrets s SET value = o.value, data_key_id = o.data_key_id"
        " FROM graphwright.secrets o WHERE s.name = 'key' AND o.name = 'second'",
        "UPDATE graphwright.secrets SET name = 'key_' WHERE name = 'key';"
        " UPDATE graphwright.secrets SET name = 'key' WHERE name = 'second'",
        "UPDATE graphwright.secrets s SET previous = o.value, previous_key_id = o.data_key_id,"
        " previous_until = 'infinity'"
        " FROM graphwright.secrets o WHERE s.name = 'key' AND o.name = 'second'",
        "UPDATE graphwright.secrets SET value = set_byte(value, 20, get_byte(value, 20) # 1)",
        "UPDATE graphwright.secrets SET value = ''",
    ],
)
async def test_a_row_that_was_changed_is_not_believed(
    store: SecretStore, store_for: StoreFor, database_url: str, swap: str
) -> None:
    await store.put(ACME, "key", HUSH, "ann")
    await store.put(ACME, "second", "weak", "ann")
    sql(database_url, swap)
    for work in (store_for().reveal(ACME, ["key"]), store_for().valid(ACME, "key")):
        with pytest.raises(SecretUnreadable, match="secret key"):
            await work
    await store_for().put(ACME, "key", "anew", "ann")
    assert await store_for().valid(ACME, "key") == ("anew",)


async def test_the_rows_of_another_tenant_are_not_believed(
    store: SecretStore, store_for: StoreFor, database_url: str
) -> None:
    await store.put(ACME, "key", HUSH, "ann")
    sql(database_url, "UPDATE graphwright.secrets SET tenant = 'other'")
    assert await store_for().reveal(OTHER, ["key"]) == {}  # its data key is not theirs
    sql(database_url, "UPDATE graphwright.data_keys SET tenant = 'other'")
    with pytest.raises(SecretsUnavailable) as fault:
        await store_for().reveal(OTHER, ["key"])
    assert isinstance(fault.value.__cause__, MasterKeyFault)


async def test_nothing_that_is_stored_or_logged_holds_a_value(
    store: SecretStore,
    store_for: StoreFor,
    database_url: str,
    key_file: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    previous = "was-hush-before"
    await store.put(ACME, "key", previous, "ann")
    info, _ = await store.put(ACME, "key", HUSH, "ann", keep_previous_seconds=3600)
    other = store_for()
    assert await other.valid(ACME, "key") == (HUSH, previous)
    value = Value(HUSH, previous, float("inf"))
    told = f"{caplog.text} {info!r} {store!r} {vars(other)!r} {value!r}"
    tables = sql(
        database_url,
        "SELECT format('%%I.%%I', schemaname, tablename) FROM pg_tables"
        " WHERE schemaname IN ('graphwright', 'public')",
    )
    assert ("graphwright.secrets",) in tables
    master = read(key_file).split()[1]
    for (table,) in tables:
        told += str(sql(database_url, f"SELECT t::text FROM {table} t"))  # type: ignore[arg-type]
    for text in (HUSH, previous):
        for form in (text, text.encode().hex()):
            assert form not in told
    assert master not in told
    assert "ann" in told


async def test_concurrent_signatures_cost_one_query(
    store: SecretStore,
    store_for: StoreFor,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # However long it takes until they are asked for again.
    monkeypatch.setattr("foundation.secret_store.store._FRESH_SECONDS", 600.0)
    await store.put(ACME, "key", HUSH, "ann")
    other = store_for()
    with psycopg.connect(database_url) as blocker:
        blocker.execute("LOCK TABLE graphwright.secrets")
        asked = [asyncio.create_task(other.valid(ACME, "key")) for _ in range(100)]
        await until_waiting(database_url, 1, asked[0])
        asked[0].cancel()  # whose query the others share
        blocker.rollback()
        found = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert set(found[1:]) == {(HUSH,)}  # type: ignore[arg-type]
    sql(database_url, "DROP TABLE graphwright.secrets")
    assert await other.valid(ACME, "key") == (HUSH,)
    assert await other.reveal(ACME, ["key"]) == {"key": HUSH}


async def test_a_secret_that_was_missing_is_looked_for_again(
    store: SecretStore, store_for: StoreFor
) -> None:
    assert await store.reveal(ACME, ["key"]) == {}
    await store_for().put(ACME, "key", HUSH, "ann")
    assert await store.reveal(ACME, ["key"]) == {"key": HUSH}


async def test_without_the_master_key_tenants_are_told_little(
    store: SecretStore, store_for: StoreFor, key_file: Path
) -> None:
    await store.put(ACME, "key", HUSH, "ann")
    mount(key_file, read(key_file), 0o644)
    for work in (store_for().put(ACME, "key", "1", "ann"), store_for().valid(ACME, "key")):
        with pytest.raises(SecretsUnavailable) as fault:
            await work
        assert str(key_file) not in f"{fault.value} {fault.value.hint} {fault.value.ids}"
        assert "0644" in str(fault.value.__cause__)
    assert (await store_for().list(ACME, 10)).items


async def test_a_process_with_a_master_key_of_its_own_makes_nothing(
    store: SecretStore,
    store_for: StoreFor,
    rotate_for: RotateFor,
    tmp_path: Path,
    database_url: str,
) -> None:
    await store.put(ACME, "key", HUSH, "ann")
    stranger = store_for(tmp_path / "elsewhere")
    for tenant in (OTHER, ACME):
        with pytest.raises(SecretsUnavailable):
            await stranger.put(tenant, "key", "1", "eve")
    with pytest.raises(MasterKeyFault, match="missing here"):
        await rotate_for(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    assert sql(database_url, "SELECT count(*) FROM graphwright.data_keys") == [(1,)]


@given(st.text(min_size=1), st.binary(min_size=32, max_size=32), st.data())
def test_a_flipped_bit_or_another_context_is_found_out(
    value: str, key: bytes, data: st.DataObject
) -> None:
    plain = value.encode(errors="surrogatepass")
    sealed = seal(key, plain, "of", "this")
    assert unseal(key, sealed, "of", "this") == plain
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    flipped = bytearray(sealed)
    flipped[bit // 8] ^= 1 << bit % 8
    for wrong, context in (
        (bytes(flipped), ("of", "this")),
        (sealed, ("ofthis",)),
        (sealed, ("of", "that")),
        (sealed[: data.draw(st.integers(0, len(sealed) - 1))], ("of", "this")),
    ):
        with pytest.raises(Tampered):
            unseal(key, wrong, *context)
