"""The audit log: who changed what, when and from where, or was refused it."""

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import jwt
import psycopg
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from foundation.database import AsyncPool, async_pool, connect
from foundation.ids import TenantId, new_id
from foundation.settings import Limits, Settings
from foundation.tenant_pool import TenantPool, tenant_sessions
from live_api.audit import Audit
from live_api.audit_log import AuditLog, Entry
from live_api.edge.callers import CALLER
from live_api.identity import Principal, issue_token, signing_key
from live_api.identity.own_tokens import RefreshClaims, issue_refresh_token
from tests.live_api.conftest import ClientFor, readiness, serving
from tests.live_api.test_problems import check
from tests.live_api.test_sessions import LOGIN, LOGOUT, REFRESH, api_key, log_in, refresh

pytestmark = pytest.mark.anyio

AUDIT = "/api/v1/audit"
ACME = TenantId("acme")


@pytest.fixture
def api_url(api_url: str) -> str:
    """Once there is a connection for the log, which waits two seconds for one, and no longer."""
    with httpx.Client(base_url=api_url, timeout=30) as client:
        readiness(client)
    return api_url


def entries(client: httpx.Client, **query: str) -> list[dict[str, Any]]:
    answer = client.get(AUDIT, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def unsafe(app: httpx.Client) -> list[tuple[str, str, str]]:
    """Method, path and operation of whatever may change something."""
    paths = app.get("/openapi.json").json()["paths"]
    return [
        (method.upper(), path, operation["operationId"])
        for path, operations in paths.items()
        for method, operation in operations.items()
        if method not in {"get", "head", "options"}
    ]


def test_an_entry_says_who_what_when_and_from_where(client: httpx.Client) -> None:
    before = datetime.now(UTC)
    headers = {"X-Request-ID": "mine", "User-Agent": "test/1"}
    client.put("/api/v1/secrets/key", json={"value": "v"}, headers=headers)
    (entry,) = entries(client)
    assert before <= datetime.fromisoformat(entry.pop("at")) <= datetime.now(UTC)
    assert entry.pop("audit_id")
    assert entry.pop("token_id")
    assert entry == {
        "subject": "ann",
        "role": None,
        "action": "secrets.put",
        "target": {"name": "key"},
        "status": 201,
        "address": "127.0.0.1",
        "request_id": "mine",
        "user_agent": "test/1",
    }


def test_every_changing_route_writes_it_when_it_refuses(client_for: ClientFor) -> None:
    """The routes are those of the application, so a new one is among them."""
    client, reader = client_for(), client_for(scopes=())
    expected: list[str] = []
    for method, path, operation in unsafe(client):
        if path.startswith("/api/v1/auth/"):
            continue
        known = re.sub(r"\{[a-z_]+\}", new_id(), path)
        answer = reader.request(method, known)
        assert answer.status_code == 403, (method, path)
        expected.append(operation)
    assert len(expected) > 20
    found = entries(client, limit="200")
    assert [entry["action"] for entry in found] == expected[::-1]
    assert {entry["status"] for entry in found} == {403}


def test_every_changing_route_writes_it_when_it_is_called(client: httpx.Client) -> None:
    expected: list[str] = []
    for method, path, operation in unsafe(client):
        if not path.startswith("/api/v1/auth/"):
            known = re.sub(r"\{[a-z_]+\}", new_id(), path)
            client.request(method, known, json={})
            expected.append(operation)
    found = entries(client, limit="200")
    assert sorted(entry["action"] for entry in found) == sorted(expected)
    assert all(400 <= entry["status"] < 500 or entry["status"] == 204 for entry in found)


def test_reading_and_strangers_leave_no_entry(
    client: httpx.Client, anonymous: httpx.Client
) -> None:
    client.get("/api/v1/graphs")
    client.options("/api/v1/graphs")
    check(anonymous.put("/api/v1/secrets/key", json={"value": "v"}), 401, "unauthenticated")
    assert entries(client) == []


def test_logins_are_on_record_good_and_bad(
    client: httpx.Client, anonymous: httpx.Client, settings: Settings
) -> None:
    made = api_key(client)
    prefix = made["prefix"]
    given = log_in(anonymous, made["api_key"])
    anonymous.post(LOGIN, json={"api_key": f"gw_{prefix}_{'a' * 43}"})
    anonymous.post(LOGIN, json={"api_key": made["api_key"], "scopes": ["graphs:write"]})
    anonymous.post(LOGIN, json={"api_key": f"gw_zzzzzzzz_{'a' * 43}"})  # nobody's
    refresh(anonymous, given["refresh_token"])
    refresh(anonymous, given["refresh_token"])
    anonymous.post(LOGOUT, json={"refresh_token": given["refresh_token"]})
    unknown = RefreshClaims(ACME, new_id(), 0)
    lost = issue_refresh_token(signing_key(settings.state), unknown, 60)
    anonymous.post(REFRESH, json={"refresh_token": lost})
    found = entries(client, actor=f"key:{prefix}")
    assert [(entry["action"], entry["status"]) for entry in found][::-1] == [
        ("auth.login", 200),
        ("auth.login", 401),
        ("auth.login", 403),
        ("auth.refresh", 200),
        ("auth.refresh", 401),
        ("auth.logout", 204),
    ]
    assert {entry["token_id"] for entry in found} == {made["token_id"]}
    assert {entry["role"] for entry in found} == {"operator"}
    assert [entry["action"] for entry in entries(client)][-1] == "tokens.create"


def test_a_sessions_changes_bear_the_keys_name(
    client: httpx.Client, anonymous: httpx.Client
) -> None:
    made = api_key(client, role="editor")
    access = log_in(anonymous, made["api_key"])["access_token"]
    headers = {"Authorization": f"Bearer {access}"}
    anonymous.put("/api/v1/secrets/key", json={"value": "v"}, headers=headers)
    newest = entries(client)[0]
    assert (newest["subject"], newest["role"]) == (f"key:{made['prefix']}", "editor")


def test_a_body_that_cannot_be_read_is_on_record(client: httpx.Client) -> None:
    """It is read after the token."""
    headers = {"Content-Type": "application/json"}
    check(client.put("/api/v1/secrets/key", content=b"{", headers=headers), 422, "invalid")
    (entry,) = entries(client)
    assert (entry["subject"], entry["action"], entry["status"]) == ("ann", "secrets.put", 422)


def test_a_login_is_its_keys_whatever_token_came_with_it(client: httpx.Client) -> None:
    made = api_key(client)
    log_in(client, made["api_key"])
    (entry,) = entries(client, action="auth.login")
    assert (entry["subject"], entry["status"]) == (f"key:{made['prefix']}", 200)


def test_what_the_tenants_limit_refuses_leaves_no_entry(
    settings: Settings, limits: Limits, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a client gone wild would fill the log, which nothing empties."""
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now)  # so that no minute ends meanwhile
    few = settings.model_copy(update={"requests_per_minute": 1})
    headers = client.headers
    with (
        serving(few, limits) as url,
        httpx.Client(base_url=url, headers=headers, timeout=30) as limited,
    ):
        readiness(limited)
        answers = [limited.put("/api/v1/secrets/key", json={"value": "v"}) for _ in range(3)]
    assert [each.status_code for each in answers] == [201, 429, 429]
    assert [entry["status"] for entry in entries(client)] == [201]


def test_filters_and_pages(client: httpx.Client, client_for: ClientFor) -> None:
    for number in range(3):
        client.put(f"/api/v1/secrets/key{number}", json={"value": "v"})
        client.delete(f"/api/v1/secrets/key{number}")
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "2", "action": "secrets.put"} | ({"cursor": cursor} if cursor else {})
        page = client.get(AUDIT, params=query).json()
        seen += [item["target"]["name"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == ["key2", "key1", "key0"]
    assert len(entries(client, actor="ann")) == 6
    assert len(entries(client, actor="ann", action="secrets.delete")) == 3
    assert entries(client, actor="bob") == entries(client, action="x\0") == []
    now = datetime.now(UTC)
    assert len(entries(client, after=(now - timedelta(minutes=1)).isoformat())) == 6
    assert entries(client, after=(now + timedelta(minutes=1)).isoformat()) == []
    for bad in ({"cursor": "?"}, {"after": "soon"}, {"after": "2026-01-01T00:00:00"}):
        check(client.get(AUDIT, params=bad), 422, "invalid")
    assert entries(client_for("globex")) == []
    check(client_for(scopes=("runs:read",)).get(AUDIT), 403, "forbidden")


def test_what_no_column_takes_is_no_fault_of_the_change(client: httpx.Client) -> None:
    headers = {b"User-Agent": b"\xe9" * 600}
    check(client.delete("/api/v1/secrets/a%00b", headers=headers), 404, "not_found")
    (entry,) = entries(client)
    assert entry["target"] == {"name": "a\ufffdb"}
    assert len(entry["user_agent"]) == 256


def test_a_token_with_an_odd_id_leaves_its_entry(
    anonymous: httpx.Client, client: httpx.Client, settings: Settings
) -> None:
    key = signing_key(settings.state)
    claims = jwt.decode(issue_token(key, "acme", "ann"), options={"verify_signature": False})
    odd = jwt.encode({**claims, "sub": "\ud800", "jti": "\0" * 300}, key, algorithm="HS256")
    headers = {"Authorization": f"Bearer {odd}"}
    check(anonymous.delete("/api/v1/secrets/a", headers=headers), 404, "not_found")
    (entry,) = entries(client)
    assert (entry["subject"], entry["token_id"]) == ("?", "\ufffd" * 256)


def test_the_database_lets_nobody_change_it(client: httpx.Client, settings: Settings) -> None:
    client.put("/api/v1/secrets/key", json={"value": "v"})
    with connect(settings.database_url) as connection:
        rows = connection.execute("SELECT tableoid::regclass::text AS part FROM graphwright.audit")
        (part,) = (row["part"] for row in rows)
        for table in ("graphwright.audit", part):
            for statement in (
                f"UPDATE {table} SET subject = 'bob'",
                f"DELETE FROM {table}",
                f"TRUNCATE {table}",
            ):
                with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
                    connection.execute(statement.encode())
    assert len(entries(client)) == 1


@pytest.fixture
async def pool(database_url: str) -> AsyncGenerator[AsyncPool]:
    async with async_pool(database_url) as pool:
        await pool.wait(60)  # the log itself waits two seconds for a connection
        yield pool


@pytest.fixture
async def tenant_pool(database_url: str) -> AsyncGenerator[TenantPool]:
    async with tenant_sessions(database_url) as sessions:
        yield TenantPool(sessions)


def entry(number: int, tenant: str = "acme") -> Entry:
    return Entry(
        tenant=TenantId(tenant),
        subject="ann",
        role="admin",
        token_id="1",
        action="secrets.put",
        target={"name": f"key{number}"},
        status=200,
        address=None,
        request_id=str(number),
        user_agent=None,
    )


async def test_many_at_once_are_few_commits_and_none_is_lost(
    pool: AsyncPool, tenant_pool: TenantPool
) -> None:
    log = AuditLog(pool, tenant_pool)
    made = [entry(number, "acme" if number % 2 else "globex") for number in range(600)]
    await asyncio.gather(*(log.add(each) for each in made[:300]))
    for each in made[300:]:
        log.add_later(each)
    await log.close()
    page = await log.list(ACME, 1_000)
    assert {each.request_id for each in page.items} == {str(number) for number in range(1, 600, 2)}
    async with pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT count(DISTINCT xmin::text) AS commits FROM graphwright.audit"
        )
        row = await cursor.fetchone()
    assert row is not None
    assert row["commits"] <= 10


async def test_an_entry_that_cannot_be_written_costs_no_other(
    pool: AsyncPool, tenant_pool: TenantPool
) -> None:
    log = AuditLog(pool, tenant_pool)
    bad = replace(entry(1), token_id="\ud800")
    results = await asyncio.gather(
        *(log.add(each) for each in (entry(0), bad, entry(2))), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(None), TypeError, type(None)]
    with pytest.raises(TypeError):
        log.add_later(bad)
    log.add_later(entry(3))
    await log.close()
    assert {each.request_id for each in (await log.list(ACME, 9)).items} == {"0", "2", "3"}


async def test_what_is_left_for_later_is_written_by_itself(
    pool: AsyncPool, tenant_pool: TenantPool
) -> None:
    log = AuditLog(pool, tenant_pool)
    log.add_later(entry(1))
    async with asyncio.timeout(30):
        while not (await log.list(ACME, 1)).items:  # noqa: ASYNC110 - it is the database that tells
            await asyncio.sleep(0.05)
    await log.close()


async def test_the_answer_comes_though_the_database_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nowhere = async_pool("postgresql://nowhere.invalid/none")  # closed, so that nobody waits
    log = AuditLog(nowhere, TenantPool(nowhere))

    async def change(request: Request) -> PlainTextResponse:
        request.scope["state"] |= {
            CALLER: Principal(ACME, "ann", frozenset(), 0),
            "request_id": "mine",
        }
        return PlainTextResponse("done")

    app = Starlette(
        routes=[Route("/things/{thing}", change, methods=["POST"])],
        middleware=[Middleware(Audit)],
    )
    app.state.services = SimpleNamespace(audit=log)
    transport = httpx.ASGITransport(_with_state(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post("/things/one")
    assert (answer.status_code, answer.text) == (200, "done")
    (record,) = (each for each in caplog.records if each.name == "live_api.audit_log")
    assert record.levelno == logging.ERROR
    for part in ('"subject":"ann"', '"thing":"one"', '"request_id":"mine"', '"status":200'):
        assert part in record.getMessage()


def _with_state(app: Starlette) -> Any:
    async def called(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "state": {}}, receive, send)

    return called
