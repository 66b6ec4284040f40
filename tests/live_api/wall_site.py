"""A running API with two tenants, of which one has one of everything."""

import json
import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from psycopg.sql import SQL, Identifier

from foundation.database import connect
from foundation.ids import new_id
from foundation.settings import Limits, Settings
from live_api.app import create_app
from live_api.identity import SCOPES, issue_token, signing_key
from tests.live_api.conftest import serving_app
from tests.live_api.wall_routes import LAST, ROUTES, document

OURS, THEIRS = "acme", "victim"
HUSH = "victim-hush-7d1f"


@dataclass(frozen=True)
class Route:
    name: str
    method: str
    path: str


@dataclass(frozen=True)
class Site:
    """A running API, and a tenant in it that has one of everything."""

    app: FastAPI
    url: str
    settings: Settings
    ids: dict[str, str] = field(default_factory=dict[str, str])

    def token(self, tenant: str = OURS, scopes: Iterable[str] = SCOPES, **more: Any) -> str:
        """Of Eve, but in the other tenant of Ann."""
        subject = "ann" if tenant == THEIRS else "eve"
        return issue_token(signing_key(self.settings.state), tenant, subject, scopes, **more)

    def client(self, token: str | None) -> httpx.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, verify=False)

    def routes(self) -> list[Route]:
        found = [
            Route(operation["operationId"], method.upper(), path)
            for path, operations in self.app.openapi()["paths"].items()
            for method, operation in operations.items()
        ]
        return sorted(found, key=lambda route: route.name in LAST)

    def ask(self, client: httpx.Client, route: Route) -> tuple[int, str]:
        """The status and the text of the answer; of a stream without end only the status."""
        row = ROUTES[route.name]
        path = re.sub(r"\{(\w+)\}", lambda found: self.ids[found[1]], route.path)
        body = None if row.body is None else row.body(self.ids)
        with client.stream(route.method, path + row.query, json=body) as answer:
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                return answer.status_code, ""
            return answer.status_code, answer.read().decode()

    def stored(self, tenant: str) -> dict[str, list[str]]:
        """All that the database has of a tenant, by table; of its audit log only Eve's doings.

        The log is written a moment later, and tells of refusals too.
        """
        tables = """
            SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.relnamespace = 'graphwright'::regnamespace AND c.relkind IN ('r', 'p')
                AND NOT c.relispartition AND a.attname = 'tenant'
        """
        found: dict[str, list[str]] = {}
        with connect(self.settings.database_url) as connection:
            for table in [row["relname"] for row in connection.execute(tables)]:
                query = SQL("SELECT t::text FROM {} t WHERE tenant = %s").format(
                    Identifier("graphwright", table)
                )
                rows = connection.execute(query, (tenant,)).fetchall()
                found[table] = sorted(row["t"] for row in rows)
            if tenant == THEIRS:
                found["audit"] = [row for row in found["audit"] if "eve" in row]
            else:
                del found["audit"]
            query = SQL(
                "SELECT e.id::text FROM event_logs e JOIN graphwright.runs r"
                " ON r.run_id::text = e.run_id WHERE r.tenant = %s"
            )
            found["event_logs"] = [row["id"] for row in connection.execute(query, (tenant,))]
        return found


@contextmanager
def serving_site(settings: Settings, limits: Limits) -> Generator[Site]:
    app = create_app(settings, limits)
    with serving_app(app) as url:
        site = Site(app, url, settings)
        _furnish(site)
        yield site


@pytest.fixture
def site(settings: Settings, limits: Limits) -> Generator[Site]:
    with serving_site(settings, limits) as opened:
        yield opened


def _furnish(site: Site) -> None:
    """Give the other tenant one of everything that has an id or a name."""
    ids = site.ids
    with site.client(site.token(THEIRS)) as client:

        def made(method: str, path: str, body: Any = None) -> Any:
            answer = client.request(method, f"/api/v1{path}", json=body)
            assert answer.is_success, (path, answer.text)
            return answer.json()

        name = "theirs"
        graph = made("POST", "/graphs", document(name, HUSH))
        ids |= {"graph": graph["graph_id"], "name_of_graph": name, "version": "1", "node": "a"}
        made("PUT", f"/graphs/{ids['graph']}/draft", document(name, f"{HUSH}-draft"))
        ids["run_id"] = made("POST", f"/graphs/{ids['graph']}/runs", {})["run_id"]
        triggers = made("GET", f"/graphs/{ids['graph']}/triggers")["items"]
        hook, timer = sorted(triggers, key=lambda each: each["type"] == "timer")
        ids["trigger_id"] = timer["trigger_id"]
        backfill = {"from": "2026-01-31T00:00:00Z", "to": "2026-02-01T00:00:00Z"}
        path = f"/triggers/{timer['trigger_id']}/backfills"
        ids["backfill_id"] = made("POST", path, backfill)["backfill_id"]
        made("PUT", "/secrets/their_key", {"value": HUSH})
        made("PUT", "/members/their-admin", {"role": "admin"})
        made("PUT", "/members/their-member", {"role": "viewer"})
        ids |= {"name": "their_key", "subject": "their-member", "tenant": THEIRS}
        ids["token_id"] = made("POST", "/tokens", {"name": HUSH, "role": "viewer"})["token_id"]
        ids |= {"type": "data.transform", "delivery_id": new_id()}
    with connect(site.settings.database_url) as connection:
        connection.execute(
            "INSERT INTO graphwright.deliveries (tenant, delivery_id, trigger_id, graph_id,"
            " received_at, headers, query, body)"
            " VALUES (%s, %s, %s, %s, now(), '{}', '{}', %s)",
            (THEIRS, ids["delivery_id"], hook["trigger_id"], ids["graph"], HUSH.encode()),
        )
        connection.execute(
            "INSERT INTO graphwright.node_outputs (tenant, run_id, node, value)"
            " VALUES (%s, %s, 'a', %s)",
            (THEIRS, ids["run_id"], json.dumps(HUSH)),
        )
