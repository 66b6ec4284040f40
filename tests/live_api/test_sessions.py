"""Log in with an API key, refresh, log out."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest

from foundation.database import AsyncPool, async_pool, connect
from foundation.errors import RateLimited, Unauthenticated, Unavailable
from foundation.ids import TenantId
from foundation.settings import Settings
from foundation.tenant_pool import TenantPool, tenant_sessions
from live_api.identity import Principal, SigningKey, issue_token, signing_key
from live_api.identity.api_keys import ApiKey, Hasher, parse_api_key
from live_api.identity.attempts import Attempts
from live_api.identity.key_store import KeyStore
from live_api.identity.sessions import Refused, Sessions
from tests.live_api.conftest import ClientFor
from tests.live_api.test_problems import check

pytestmark = pytest.mark.anyio

LOGIN, REFRESH, LOGOUT = (f"/api/v1/auth/{verb}" for verb in ("login", "refresh", "logout"))
KEY = SigningKey(b"k" * 43)
ACME = TenantId("acme")


def api_key(client: httpx.Client, **changes: object) -> dict[str, Any]:
    answer = client.post("/api/v1/tokens", json={"name": "ci", "role": "operator", **changes})
    assert answer.status_code == 201, answer.text
    return answer.json()


def log_in(anonymous: httpx.Client, key: str, **more: object) -> dict[str, Any]:
    answer = anonymous.post(LOGIN, json={"api_key": key, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def refresh(anonymous: httpx.Client, token: str) -> httpx.Response:
    return anonymous.post(REFRESH, json={"refresh_token": token})


def get(anonymous: httpx.Client, path: str, token: str) -> httpx.Response:
    return anonymous.get(path, headers={"Authorization": f"Bearer {token}"})


def test_an_api_key_gives_tokens_that_give_access(
    client: httpx.Client, anonymous: httpx.Client
) -> None:
    made = api_key(client)
    given = log_in(anonymous, made["api_key"])
    assert (given["token_type"], given["expires_in"]) == ("Bearer", 900)
    assert 30 * 86_400 - 60 < given["refresh_expires_in"] <= 30 * 86_400
    assert (given["tenant"], given["role"]) == ("acme", "operator")
    assert given["scope"].split() == made["scopes"]
    assert get(anonymous, "/api/v1/graphs", given["access_token"]).status_code == 200
    check(get(anonymous, "/api/v1/tokens", given["access_token"]), 403, "forbidden")


def test_scopes_can_be_narrowed_at_the_login_and_stay_so(
    client: httpx.Client, anonymous: httpx.Client
) -> None:
    key = api_key(client)["api_key"]
    given = log_in(anonymous, key, scopes=["graphs:read"])
    for _ in range(2):
        assert given["scope"] == "graphs:read"
        assert get(anonymous, "/api/v1/graphs", given["access_token"]).status_code == 200
        check(get(anonymous, "/api/v1/runs", given["access_token"]), 403, "forbidden")
        given = refresh(anonymous, given["refresh_token"]).json()
    check(
        anonymous.post(LOGIN, json={"api_key": key, "scopes": ["graphs:write"]}), 403, "forbidden"
    )
    answer = anonymous.post(LOGIN, json={"api_key": key, "scopes": ["graphs:read", "all"]})
    check(answer, 422, "invalid")
    assert answer.json()["errors"][0]["pointer"] == "/scopes/1"


def test_what_is_no_key_is_refused_in_one_way(
    client: httpx.Client, anonymous: httpx.Client
) -> None:
    key = api_key(client)["api_key"]
    prefix = key.split("_")[1]
    answers = [
        anonymous.post(LOGIN, json={"api_key": bad})
        for bad in (
            "",
            "gw_",
            key[:-1],
            f"{key} ",
            f"gw_{prefix}_{'a' * 43}",
            f"gw_zzzzzzzz_{'a' * 43}",
            "é\0",
        )
    ]
    for answer in answers:
        check(answer, 401, "unauthenticated")
    assert len({answer.json()["detail"] for answer in answers}) == 1


@pytest.mark.parametrize("path", [LOGIN, REFRESH, LOGOUT])
@pytest.mark.parametrize(
    "body", [None, [], {}, {"api_key": 1, "refresh_token": 1}, {"api_key": "a", "more": 1}]
)
def test_bad_requests(anonymous: httpx.Client, path: str, body: Any) -> None:
    check(anonymous.post(path, json=body), 422, "invalid")


def test_last_use_is_recorded(client: httpx.Client, anonymous: httpx.Client) -> None:
    made = api_key(client)
    path = f"/api/v1/tokens/{made['token_id']}"
    assert client.get(path).json()["last_used_at"] is None
    given = log_in(anonymous, made["api_key"])
    first = client.get(path).json()["last_used_at"]
    assert refresh(anonymous, given["refresh_token"]).status_code == 200
    assert client.get(path).json()["last_used_at"] > first


def test_a_refresh_token_is_good_once_and_its_reuse_ends_the_session(
    client: httpx.Client, anonymous: httpx.Client
) -> None:
    key = api_key(client)["api_key"]
    other = log_in(anonymous, key)
    first = log_in(anonymous, key)["refresh_token"]
    second = refresh(anonymous, first).json()["refresh_token"]
    third = refresh(anonymous, second).json()["refresh_token"]
    check(refresh(anonymous, first), 401, "token_reused")
    for token in (first, second, third):
        check(refresh(anonymous, token), 401, "token_reused")
    assert refresh(anonymous, other["refresh_token"]).status_code == 200  # another session


def test_of_two_refreshes_at_once_one_wins_and_the_session_ends(
    client: httpx.Client, anonymous: httpx.Client
) -> None:
    token = log_in(anonymous, api_key(client)["api_key"])["refresh_token"]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(refresh, [anonymous] * 8, [token] * 8))
    (winner,) = (answer for answer in answers if answer.status_code == 200)
    for answer in answers:
        if answer is not winner:
            check(answer, 401, "token_reused")
    check(refresh(anonymous, winner.json()["refresh_token"]), 401, "token_reused")


def test_a_revoked_key_ends_its_sessions(client: httpx.Client, anonymous: httpx.Client) -> None:
    made = api_key(client)
    given = log_in(anonymous, made["api_key"])
    assert client.delete(f"/api/v1/tokens/{made['token_id']}").status_code == 204
    check(refresh(anonymous, given["refresh_token"]), 401, "unauthenticated")
    check(anonymous.post(LOGIN, json={"api_key": made["api_key"]}), 401, "unauthenticated")


def test_a_key_that_expires_soon_gives_no_longer_session(
    client: httpx.Client, anonymous: httpx.Client, settings: Settings
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=60)
    made = api_key(client, expires_at=soon.isoformat())
    given = log_in(anonymous, made["api_key"])
    assert given["expires_in"] <= 60
    assert given["refresh_expires_in"] <= 60
    with connect(settings.database_url) as connection:
        connection.execute("UPDATE graphwright.api_keys SET expires_at = now()")
    check(anonymous.post(LOGIN, json={"api_key": made["api_key"]}), 401, "unauthenticated")


def test_role_and_scopes_are_read_again_at_each_refresh(
    client: httpx.Client, anonymous: httpx.Client, settings: Settings
) -> None:
    given = log_in(anonymous, api_key(client)["api_key"])
    with connect(settings.database_url) as connection:
        connection.execute("UPDATE graphwright.api_keys SET role = 'viewer'")
    given = refresh(anonymous, given["refresh_token"]).json()
    assert given["role"] == "viewer"
    assert "runs:write" not in given["scope"]


def test_logout_ends_the_session(client: httpx.Client, anonymous: httpx.Client) -> None:
    token = log_in(anonymous, api_key(client)["api_key"])["refresh_token"]
    for _ in range(2):
        answer = anonymous.post(LOGOUT, json={"refresh_token": token})
        assert (answer.status_code, answer.content) == (204, b"")
    check(refresh(anonymous, token), 401, "unauthenticated")


def test_only_refresh_tokens_refresh_and_they_give_no_access(
    client: httpx.Client, anonymous: httpx.Client, settings: Settings
) -> None:
    given = log_in(anonymous, api_key(client)["api_key"])
    check(get(anonymous, "/api/v1/graphs", given["refresh_token"]), 401, "unauthenticated")
    own = jwt.decode(given["refresh_token"], options={"verify_signature": False})
    key = signing_key(settings.state)
    for bad in (
        given["access_token"],
        issue_token(key, "acme", "ann"),
        jwt.encode(own, b"o" * 43, algorithm="HS256"),
        jwt.encode({**own, "exp": 1}, key, algorithm="HS256"),
        jwt.encode({**own, "tenant": "globex"}, key, algorithm="HS256"),
        "",
        "a.b.c",
    ):
        check(refresh(anonymous, bad), 401, "unauthenticated")
        check(anonymous.post(LOGOUT, json={"refresh_token": bad}), 401, "unauthenticated")
    assert refresh(anonymous, given["refresh_token"]).status_code == 200


@pytest.mark.usefixtures("clock")  # or the minute may end
def test_failed_logins_of_an_address_are_limited(
    client: httpx.Client, anonymous: httpx.Client
) -> None:
    key = api_key(client)["api_key"]
    for _ in range(30):
        check(anonymous.post(LOGIN, json={"api_key": "bad"}), 401, "unauthenticated")
    answer = anonymous.post(LOGIN, json={"api_key": key})
    check(answer, 429, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 60


@pytest.mark.usefixtures("clock")
def test_failed_logins_that_come_at_once_are_limited_as_well(
    client: httpx.Client, anonymous: httpx.Client
) -> None:
    prefix = api_key(client)["prefix"]
    bad = {"api_key": f"gw_{prefix}_{'a' * 43}"}

    def failed(_: int) -> int:
        return anonymous.post(LOGIN, json=bad).status_code

    with ThreadPoolExecutor(60) as threads:
        assert Counter(threads.map(failed, range(60))) == {401: 30, 429: 30}


@pytest.fixture
async def pool(database_url: str) -> AsyncGenerator[AsyncPool]:
    async with async_pool(database_url) as pool:
        yield pool


@pytest.fixture
async def keys(database_url: str) -> AsyncGenerator[KeyStore]:
    async with tenant_sessions(database_url) as sessions:
        yield KeyStore(TenantPool(sessions), Hasher())


async def made_key(keys: KeyStore) -> ApiKey:
    return (await keys.create(Principal(ACME, "ann", frozenset(), 0), "ci", "viewer"))[1]


async def test_an_unknown_prefix_costs_a_hash_as_well(
    pool: AsyncPool, keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasher = Hasher()
    hashed: list[str | None] = []
    matches = hasher.matches

    async def counted(known: str | None, secret: str) -> bool:
        hashed.append(known)
        return await matches(known, secret)

    monkeypatch.setattr(hasher, "matches", counted)
    sessions = Sessions(pool, KEY, hasher)
    key = await made_key(keys)
    for secret in (key, f"gw_zzzzzzzz_{key.secret}", f"gw_{key.prefix}_{'a' * 43}"):
        if secret is key:
            await sessions.log_in(str(secret), None)
        else:
            with pytest.raises(Refused):
                await sessions.log_in(str(secret), None)
    assert [known is None for known in hashed] == [False, True, False]


async def test_the_hash_of_nobody_matches_nothing() -> None:
    hasher = Hasher()
    assert not await hasher.matches(None, "")
    assert await hasher.matches(await hasher.hash("secret"), "secret")


async def test_only_so_many_wait_for_a_hash() -> None:
    hasher = Hasher()
    results = await asyncio.gather(
        *(hasher.matches(None, "") for _ in range(40)), return_exceptions=True
    )
    assert results[:34] == [False] * 34
    assert {type(result) for result in results[34:]} == {Unavailable}
    assert not await hasher.matches(None, "")


async def test_no_secret_is_in_the_database(pool: AsyncPool, keys: KeyStore) -> None:
    hasher = Hasher()
    key = await made_key(keys)
    grant = await Sessions(pool, KEY, hasher).log_in(str(key), None)
    async with pool.connection() as connection:
        rows: list[Any] = []
        for table in ("api_keys", "sessions"):
            cursor = await connection.execute(f"SELECT t::text AS row FROM graphwright.{table} t")
            rows += await cursor.fetchall()
    text = str(rows)
    assert key.prefix in text
    for secret in (key.secret, grant.refresh_token, grant.refresh_token.split(".")[2]):
        assert secret not in text
    assert re.search(r"\$argon2id\$", text)
    assert grant.access_token not in repr(grant)


async def test_sessions_that_are_over_are_forgotten(pool: AsyncPool, keys: KeyStore) -> None:
    hasher = Hasher()
    sessions = Sessions(pool, KEY, hasher)
    key = await made_key(keys)
    old = await sessions.log_in(str(key), None)
    async with pool.connection() as connection:
        await connection.execute("UPDATE graphwright.sessions SET expires_at = now()")
        with pytest.raises(Refused):
            await sessions.refresh(old.refresh_token)
        await sessions.log_in(str(key), None)
        cursor = await connection.execute("SELECT session_id FROM graphwright.sessions")
        assert len(await cursor.fetchall()) == 1


def test_parsing_api_keys() -> None:
    assert parse_api_key(f"gw_abcd1234_{'-_' * 21}A") == ("abcd1234", f"{'-_' * 21}A")
    for bad in (f"gw_abcd123_{'a' * 43}", f"gw_abcd1234_{'a' * 44}", f"gw_abcd1234_{'a' * 43}\n"):
        assert parse_api_key(bad) is None


def test_another_tenants_key_gives_that_tenant(
    client_for: ClientFor, anonymous: httpx.Client
) -> None:
    given = log_in(anonymous, api_key(client_for("globex"))["api_key"])
    assert given["tenant"] == "globex"


def test_logins_with_one_key_are_limited_from_wherever_they_come() -> None:
    attempts = Attempts()
    one, other = (f"gw_{prefix}_{'a' * 43}" for prefix in ("abcd1234", "abcd1235"))
    for number in range(120):
        with attempts.one(f"10.0.0.{number}", one):
            pass
    with pytest.raises(RateLimited), attempts.one("10.0.1.1", one):
        pass
    with attempts.one("10.0.1.1", other):
        pass


def test_who_knows_a_prefix_does_not_lock_its_owner_out() -> None:
    attempts = Attempts()
    key = f"gw_abcd1234_{'a' * 43}"
    for number in range(200):
        with pytest.raises(Refused), attempts.one(f"10.0.0.{number}", key):
            raise Refused(Unauthenticated("bad"))
    with attempts.one("10.0.1.1", key):
        pass


def test_logins_under_way_count_and_those_that_succeed_do_not() -> None:
    attempts = Attempts()
    for _ in range(2):
        with ExitStack() as under_way:
            for _ in range(30):
                under_way.enter_context(attempts.one("10.0.0.1", "key"))
            with pytest.raises(RateLimited), attempts.one("10.0.0.1", "key"):
                pass
            with attempts.one("10.0.0.2", "key"):
                pass
