"""The wall between tenants, over HTTP: every route of the application and every stream of it, with
another tenant's ids, each role, and tokens that are no good.

The routes come from the application itself. One that has no row in wall_routes.py, or does not
check what its row says, fails.
"""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import jwt
import pytest
from fastapi.routing import APIWebSocketRoute
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as open_socket

from dynamic_jobs.reading import runs as run_store
from foundation.database import async_pool
from foundation.ids import new_id
from foundation.settings import Limits, Settings
from live_api import app as application
from live_api.identity import ROLE_SCOPES, ROLES, SCOPES, Principal, Scope, signing_key
from tests.live_api.wall_routes import ROUTES, SOCKETS, document
from tests.live_api.wall_site import HUSH, OURS, THEIRS, Site, serving_site, site

__all__ = ["site"]


def breaches(site: Site) -> Iterator[str]:
    """What a caller with every right in a tenant gets of another tenant, or changes there."""
    before = site.stored(THEIRS)
    told = {HUSH, *site.ids.values()} - {"1", "a", "data.transform"}
    with site.client(site.token()) as client:
        for route in site.routes():
            row = ROUTES[route.name]
            if row.scope is None:
                continue
            status, text = site.ask(client, route)
            if status not in row.statuses:
                yield f"{route.name} answers {status}: {text[:200]}"
            asked = f"{route.path} {row.body(site.ids) if row.body else ''}"
            # The caller's own log repeats what the caller has asked for.
            told_by = told - _given(site, asked) if route.name != "audit.list" else set[str]()
            if HUSH in text or (status < 300 and any(known in text for known in told_by)):
                yield f"{route.name} tells what is another tenant's: {text[:200]}"
    for table, rows in site.stored(THEIRS).items():
        if rows != before[table]:
            yield f"{table} of the other tenant has changed"


def _given(site: Site, asked: str) -> set[str]:
    """What the request itself has told."""
    named = {site.ids[name] for name in re.findall(r"\{(\w+)\}", asked)}
    return named | {site.ids["name_of_graph"]}


def unasked(site: Site) -> Iterator[str]:
    """Routes that do not ask for their scope, or for more: by a token of all others, and of it."""
    for route in site.routes():
        scope = ROUTES[route.name].scope
        if scope is None:
            continue
        with site.client(site.token(scopes=set(SCOPES) - {scope})) as client:
            status, _ = site.ask(client, route)
            if status != 403:
                yield f"{route.name} answers {status} without {scope}"
        with site.client(site.token(scopes=[scope])) as client:
            status, text = site.ask(client, route)
            if status == 403 and "needs the scope" in text:
                yield f"{route.name} asks for more than {scope}"


def let_in(site: Site, tokens: Mapping[str, str | None]) -> Iterator[str]:
    """Routes that answer to a token that is no good."""
    for what, token in tokens.items():
        with site.client(token) as client:
            for route in site.routes():
                if ROUTES[route.name].scope is None:
                    continue
                status, text = site.ask(client, route)
                if status != 401 or HUSH in text:
                    yield f"{route.name} answers {status} to a token that is {what}"


def bad_tokens(site: Site) -> dict[str, str | None]:
    key = signing_key(site.settings.state)
    now = int(time.time())
    claims: dict[str, Any] = {
        **{"iss": "graphwright", "aud": "graphwright", "sub": "eve", "tenant": THEIRS},
        **{"scope": " ".join(SCOPES), "iat": now, "exp": now + 60, "jti": new_id()},
    }
    return {
        "missing": None,
        "expired": jwt.encode({**claims, "exp": now - 60}, key, algorithm="HS256"),
        "forged": jwt.encode(claims, b"x" * 43, algorithm="HS256"),
        "of no algorithm": jwt.encode(claims, "", algorithm="none"),
        "for another audience": jwt.encode({**claims, "aud": "x"}, key, algorithm="HS256"),
        "for refreshing": jwt.encode(
            {**claims, "aud": "graphwright-refresh"}, key, algorithm="HS256"
        ),
    }


def sockets(routes: Iterable[object]) -> set[str]:
    """The paths of all WebSockets of an application."""
    found: set[str] = set()
    for route in routes:
        if isinstance(route, APIWebSocketRoute):
            found.add(route.path)
        inner = getattr(route, "original_router", None) or route
        found |= sockets(cast("list[object]", getattr(inner, "routes", [])))
    return found


def test_every_route_has_a_row(site: Site) -> None:
    assert {route.name for route in site.routes()} == set(ROUTES)
    assert sockets(site.app.routes) == SOCKETS
    secured = {
        operation["operationId"]
        for operations in site.app.openapi()["paths"].values()
        for operation in operations.values()
        if "security" in operation
    }
    assert secured == {name for name, row in ROUTES.items() if row.scope is not None}


def test_nothing_of_another_tenant_is_told_or_changed(site: Site) -> None:
    assert list(breaches(site)) == []
    with site.client(site.token(THEIRS)) as client:  # to whom it belongs, all of it is there
        for route in site.routes():
            if route.method == "GET":
                status, text = site.ask(client, route)
                assert status == 200, (route.name, text)


def test_every_route_asks_for_its_scope_and_no_other(site: Site) -> None:
    assert list(unasked(site)) == []


def test_no_route_answers_to_a_token_that_is_no_good(site: Site) -> None:
    before = site.stored(THEIRS)
    assert list(let_in(site, bad_tokens(site))) == []
    assert site.stored(THEIRS) == before


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_what_it_may_and_changes_nothing_else(site: Site, role: Any) -> None:
    allowed = ROLE_SCOPES[role]
    with site.client(site.token(scopes=allowed, role=role)) as client:
        before = site.stored(OURS)
        for route in site.routes():
            scope = ROUTES[route.name].scope
            if scope is not None and scope not in allowed:
                assert site.ask(client, route)[0] == 403, route.name
        assert site.stored(OURS) == before
        for route in site.routes():
            row = ROUTES[route.name]
            if row.scope in allowed:
                assert site.ask(client, route)[0] in row.statuses, route.name


def test_a_stream_token_is_good_for_its_run_alone(site: Site) -> None:
    with site.client(site.token(THEIRS)) as client:
        answer = client.post(f"/api/v1/runs/{site.ids['run_id']}/stream-token")
    token = answer.json()["token"]
    before = site.stored(THEIRS)
    with site.client(token) as client:
        for route in site.routes():
            if ROUTES[route.name].scope is None:
                continue
            status, _ = site.ask(client, route)
            assert status == (200 if route.name == "runs.read_events" else 403), route.name
        other = client.get(f"/api/v1/runs/{new_id()}/events")
        assert other.status_code == 403
    assert site.stored(THEIRS) == before


def test_a_stream_of_everything_has_the_events_of_one_tenant(site: Site) -> None:
    runs: dict[str, str] = {}

    def start(tenant: str) -> None:
        with site.client(site.token(tenant)) as client:
            client.post("/api/v1/graphs", json=document("both")).raise_for_status()
            runs[tenant] = client.post("/api/v1/graphs/both/runs", json={}).json()["run_id"]

    with (
        site.client(site.token()) as client,
        client.stream("GET", "/api/v1/events") as answer,
        open_socket(
            site.url.replace("http", "ws") + "/api/v1/ws",
            additional_headers={"Authorization": f"Bearer {site.token()}"},
        ) as socket,
    ):
        socket.send(json.dumps({"op": "subscribe", "ref": "all", "all": True}))
        assert json.loads(socket.recv(60))["op"] == "subscribed"
        for tenant in (THEIRS, OURS):
            start(tenant)
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        first = json.loads(next(lines).removeprefix("data: "))
        assert first["run_id"] == runs[OURS]
        heard = json.loads(socket.recv(60))
        assert heard["event"]["run_id"] == runs[OURS]


def test_a_socket_has_nothing_of_another_tenant(site: Site) -> None:
    url = site.url.replace("http", "ws")
    ours = {"Authorization": f"Bearer {site.token()}"}
    run = f"{url}/api/v1/runs/{site.ids['run_id']}/ws"
    with open_socket(run, additional_headers=ours) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(60)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4404, "not_found")
    with open_socket(f"{url}/api/v1/ws", additional_headers=ours) as socket:
        for asked in ({"run_id": site.ids["run_id"]}, {"graph": site.ids["graph"]}):
            socket.send(json.dumps({"op": "subscribe", "ref": "x", **asked}))
            heard = json.loads(socket.recv(60))
            assert (heard["op"], heard["code"]) == ("error", "not_found")
            assert HUSH not in json.dumps(heard)


@pytest.mark.parametrize("path", sorted(SOCKETS))
def test_no_socket_opens_to_a_token_that_is_no_good(site: Site, path: str) -> None:
    tokens = {**bad_tokens(site), "without the scope": site.token(THEIRS, ["graphs:read"])}
    url = site.url.replace("http", "ws") + path.replace("{run_id}", site.ids["run_id"])
    for what, token in tokens.items():
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        with (
            open_socket(url, additional_headers=headers) as socket,
            pytest.raises(ConnectionClosed) as closed,
        ):
            socket.recv(60)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == (4403 if what == "without the scope" else 4401), what


def test_a_route_that_does_not_ask_who_calls_is_found_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def any_scope(_caller: Principal, _scope: Scope) -> None:
        """As if no route asked."""

    monkeypatch.setattr(Principal, "require", any_scope)
    found = list(unasked(site))
    assert len(found) == sum(row.scope is not None for row in ROUTES.values())


@pytest.mark.parametrize("second_wall", [True, False])
def test_a_statement_that_forgets_its_tenant_meets_the_second_wall(
    settings: Settings, limits: Limits, monkeypatch: pytest.MonkeyPatch, second_wall: bool
) -> None:
    """A hole in one wall is none in both; where the second is gone too, it is found here."""
    careless = run_store.GET.replace("tenant = %(tenant)s AND ", "")
    assert careless != run_store.GET
    monkeypatch.setattr(run_store, "GET", careless)
    if not second_wall:
        for sessions in ("tenant_sessions", "tenant_sessions_by_key"):
            monkeypatch.setattr(application, sessions, async_pool)
    with serving_site(settings, limits) as site:
        found = {each.split()[0] for each in breaches(site)}
    assert found == (set() if second_wall else {"runs.read"})
