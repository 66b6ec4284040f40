"""Rights that were taken away are gone: with them go the API keys that they were used to make."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from foundation.database import AsyncConnection, AsyncPool, async_pool
from foundation.errors import Forbidden, Unauthenticated
from foundation.ids import TenantId, new_id
from foundation.tenant_pool import TenantPool, tenant_sessions
from live_api.identity import Principal, SigningKey, statements
from live_api.identity.api_keys import ApiKey, Hasher
from live_api.identity.key_store import KeyStore
from live_api.identity.members import MemberStore
from live_api.identity.principal import key_subject
from live_api.identity.sessions import Refused, Sessions
from live_api.identity.standing import lock_standing
from tests.live_api.test_problems import check
from tests.live_api.test_sessions import LOGIN, api_key, log_in, refresh

pytestmark = pytest.mark.anyio

TOKENS, MEMBERS = "/api/v1/tokens", "/api/v1/members"
ACME = TenantId("acme")
LOCAL = Principal(ACME, "operator", frozenset(), 0)
MALLORY = Principal(ACME, "mallory", frozenset(), 0, role="admin", is_member=True)
WAITING = """
SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


def session_of(anonymous: httpx.Client, key: dict[str, Any]) -> dict[str, str]:
    token = log_in(anonymous, key["api_key"])["access_token"]
    return {"Authorization": f"Bearer {token}"}


def test_a_revoked_key_gives_nothing_away(client: httpx.Client, anonymous: httpx.Client) -> None:
    key = api_key(client, role="admin")
    headers = session_of(anonymous, key)
    made = {"name": "evil", "role": "admin"}
    assert anonymous.post(TOKENS, json=made, headers=headers).status_code == 201
    assert client.delete(f"{TOKENS}/{key['token_id']}").status_code == 204
    check(anonymous.post(TOKENS, json=made, headers=headers), 401, "unauthenticated")
    answer = anonymous.put(f"{MEMBERS}/eve", json={"role": "admin"}, headers=headers)
    check(answer, 401, "unauthenticated")
    assert client.get(MEMBERS).json()["items"] == []


@pytest.mark.parametrize("asked", [None, timedelta(days=1), timedelta(minutes=1)])
def test_a_key_lasts_no_longer_than_the_one_it_is_made_with(
    client: httpx.Client, anonymous: httpx.Client, asked: timedelta | None
) -> None:
    now = datetime.now(UTC)
    end = now + timedelta(hours=1)
    headers = session_of(anonymous, api_key(client, role="admin", expires_at=end.isoformat()))
    body = {"name": "ci", "role": "viewer"} | ({"expires_at": str(now + asked)} if asked else {})
    made = anonymous.post(TOKENS, json=body, headers=headers).json()
    expected = end if asked is None else min(end, now + asked)
    assert datetime.fromisoformat(made["expires_at"]) == expected


def test_with_a_member_go_the_keys_and_what_was_made_with_them(
    client: httpx.Client, anonymous: httpx.Client
) -> None:
    others = log_in(anonymous, api_key(client)["api_key"])  # of ann, who is removed below
    first = api_key(client, role="admin")
    headers = session_of(anonymous, first)
    second = anonymous.post(TOKENS, json={"name": "2", "role": "admin"}, headers=headers).json()
    boss = {"Authorization": "Bearer " + log_in(anonymous, first["api_key"])["access_token"]}
    for name in ("ann", "bob"):
        client.put(f"{MEMBERS}/{name}", json={"role": "admin"})
    check(client.delete(f"{MEMBERS}/nobody"), 404, "not_found")
    assert refresh(anonymous, others["refresh_token"]).status_code == 200
    assert anonymous.delete(f"{MEMBERS}/ann", headers=boss).status_code == 204
    for key in (first, second):
        check(anonymous.post(LOGIN, json={"api_key": key["api_key"]}), 401, "unauthenticated")
    check(refresh(anonymous, others["refresh_token"]), 401, "unauthenticated")
    assert all(each["revoked_at"] for each in client.get(TOKENS).json()["items"])


@pytest.fixture
async def pool(database_url: str) -> AsyncGenerator[AsyncPool]:
    async with async_pool(database_url) as pool:
        yield pool


@pytest.fixture
async def tenants(database_url: str) -> AsyncGenerator[TenantPool]:
    async with tenant_sessions(database_url) as sessions:
        yield TenantPool(sessions)


@pytest.fixture
async def keys(tenants: TenantPool) -> KeyStore:
    return KeyStore(tenants, Hasher())


@pytest.fixture
async def members(tenants: TenantPool) -> MemberStore:
    store = MemberStore(tenants)
    for subject in ("boss", "mallory"):
        await store.put(LOCAL, subject, "admin")
    return store


async def until_waiting(pool: AsyncPool, count: int) -> None:
    """Until so many sessions wait for a lock."""
    async with asyncio.timeout(30), pool.connection() as connection:
        while (await connection.execute(WAITING)).rowcount < count:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


async def test_whose_role_has_changed_gives_nothing_away(
    keys: KeyStore, members: MemberStore
) -> None:
    await keys.create(MALLORY, "good", "admin")
    await members.put(MALLORY, "bob", "viewer")
    await members.put(LOCAL, "mallory", "viewer")
    for _ in range(2):
        with pytest.raises(Forbidden, match="no longer"):
            await keys.create(MALLORY, "evil", "admin")
        with pytest.raises(Forbidden, match="no longer"):
            await members.put(MALLORY, "mallory", "admin")
        await members.put(LOCAL, "mallory", "viewer")
        await members.delete(ACME, "mallory")
        await members.put(LOCAL, "mallory", "viewer")
    assert len((await keys.list(ACME, 10)).items) == 1


async def test_a_key_that_is_being_made_is_not_overlooked(
    pool: AsyncPool, tenants: TenantPool, keys: KeyStore, members: MemberStore
) -> None:
    await keys.create(LOCAL, "another's", "admin")
    _, first = await keys.create(MALLORY, "first", "admin")
    async with tenants.connection(ACME) as connection, connection.transaction():
        await _make_with(connection, first)
        removal = asyncio.create_task(members.delete(ACME, "mallory"))
        await until_waiting(pool, 1)
    await removal
    infos = (await keys.list(ACME, 10)).items
    assert [(info.name, info.revoked_at is None) for info in infos] == [
        ("second", False),
        ("first", False),
        ("another's", True),
    ]


async def _make_with(connection: AsyncConnection, key: ApiKey) -> None:
    maker = Principal(ACME, key_subject(key.prefix), frozenset(), 0)
    given: dict[str, Any] = {
        "tenant": ACME, "token_id": new_id(), "prefix": "abcd1234", "hash": "", "name": "second",
        "role": "admin", "scopes": None, "expires_at": None, "author": maker.subject,
    }  # fmt: skip
    given["makers_end"] = await lock_standing(connection, maker)
    await connection.execute(statements.ADD_KEY, given)


async def test_a_key_that_is_being_revoked_makes_none(
    pool: AsyncPool, tenants: TenantPool, keys: KeyStore
) -> None:
    info, key = await keys.create(LOCAL, "first", "admin")
    given = {"tenant": ACME, "token_id": info.token_id}
    maker = Principal(ACME, key_subject(key.prefix), frozenset(), 0)
    async with pool.connection() as connection, connection.transaction():
        await connection.execute(statements.REVOKE_KEY, given)
        making = asyncio.create_task(keys.create(maker, "second", "admin"))
        await until_waiting(pool, 1)
    with pytest.raises(Unauthenticated):
        await making


async def test_revoking_a_key_and_refreshing_its_session_do_not_block_each_other(
    pool: AsyncPool, keys: KeyStore
) -> None:
    sessions = Sessions(pool, SigningKey(b"k" * 43), Hasher())
    info, key = await keys.create(LOCAL, "ci", "viewer")
    grant = await sessions.log_in(str(key), None)
    given = {"token_id": info.token_id}
    lock = "SELECT FROM graphwright.api_keys WHERE token_id = %(token_id)s FOR UPDATE"
    async with pool.connection() as connection, connection.transaction():
        await connection.execute(lock, given)
        revoking = asyncio.create_task(keys.revoke(ACME, info.token_id))
        await until_waiting(pool, 1)
        refreshing = asyncio.create_task(sessions.refresh(grant.refresh_token))
        await until_waiting(pool, 2)
    await revoking
    with pytest.raises(Refused):
        await refreshing
