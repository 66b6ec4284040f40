"""Refusals and Idempotency-Keys as a client of the API meets them."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from foundation.database import Connection, connect
from foundation.settings import Limits, Settings
from graphwright.home import dagster_environment
from live_api.identity import SCOPES, issue_token, signing_key
from tests.dynamic_jobs.conftest import before_midnight
from tests.live_api.conftest import serving

TENANT = "acme"


@pytest.fixture
def database(settings: Settings) -> Generator[Connection]:
    with connect(settings.database_url) as connection:
        connection.execute("INSERT INTO graphwright.tenants (tenant) VALUES (%s)", (TENANT,))
        yield connection


@pytest.fixture
def apis(
    settings: Settings, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> Generator[tuple[httpx.Client, httpx.Client]]:
    """Two APIs, in two threads, and a client of each; tests/faults has them as processes."""
    for name, text in dagster_environment(settings).items():
        monkeypatch.setenv(name, text)
    with ExitStack() as stack:
        urls = [stack.enter_context(serving(settings, limits)) for _ in range(2)]
        token = issue_token(signing_key(settings.state), TENANT, "ann", SCOPES, 600)
        headers = {"Authorization": f"Bearer {token}"}
        one, other = (
            stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=30))
            for url in urls
        )
        yield one, other


def publish(client: httpx.Client, value: Any = 1, **more: Any) -> None:
    document = {
        "apiVersion": "graphwright/v1",
        "kind": "Graph",
        "metadata": {"name": "digest"},
        "params": {"type": "object", "properties": {"n": {"type": "integer"}}},
        "nodes": {"a": {"type": "data.transform", "with": {"value": value}}},
        **more,
    }
    client.post("/api/v1/graphs", json=document).raise_for_status()


def start(client: httpx.Client, key: str | None = None, **body: Any) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post("/api/v1/graphs/digest/runs", json=body, headers=headers)


def accepted(answer: httpx.Response, *, replayed: bool = False) -> str:
    assert answer.status_code == 202, answer.text
    assert answer.headers.get("Idempotency-Replayed") == ("true" if replayed else None)
    run_id = answer.json()["run_id"]
    assert answer.headers["Location"].endswith(run_id)
    return run_id


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem+json, which says what is wrong and what to do."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    told = answer.json()
    assert told["code"] == code
    assert told["hint"]
    assert told["detail"] or told["title"]
    return told


def count(database: Connection) -> int:
    row = database.execute("SELECT count(*) AS n FROM graphwright.runs").fetchone()
    assert row is not None
    return row["n"]


def test_keys(apis: tuple[httpx.Client, httpx.Client], database: Connection) -> None:
    """One after the other, in two processes of which the other knows the graph too."""
    one, other = apis
    publish(one)
    run_id = accepted(start(one, "k", params={"n": 1}))

    # Sent again: the same run, whoever answers, and in whatever order the members come.
    assert accepted(start(one, "k", params={"n": 1}), replayed=True) == run_id
    assert accepted(start(other, "k", params={"n": 1}), replayed=True) == run_id

    # Another request with the same key; a key of its own; no key.
    told = problem(start(other, "k", params={"n": 2}), 409, "idempotency_key_reused")
    assert run_id in str(told)
    for body in ({"priority": 1}, {"live": False}, {"not_before": "2100-01-01T00:00:00Z"}):
        problem(start(one, "k", params={"n": 1}, **body), 409, "idempotency_key_reused")
    second = accepted(start(one, "k2", params={"n": 1}))
    third = accepted(start(one, params={"n": 1}))
    assert len({run_id, second, third}) == 3

    # What is no key, and what is refused, which uses none.
    for key in ("", "x" * 256, "a b"):
        assert start(one, key).status_code == 422
    for wrong in ("x", 2**70):
        assert start(one, "k3", params={"n": wrong}).status_code == 422
    accepted(start(one, "k3", params={"n": 3}))

    # Another version does not make it another request, even one that the params do not fit.
    publish(other, 2)
    assert accepted(start(one, "k", params={"n": 1}), replayed=True) == run_id
    publish(other, 3, params={"type": "object", "maxProperties": 0})
    assert accepted(start(one, "k", params={"n": 1}), replayed=True) == run_id
    assert accepted(start(other, "k", params={"n": 1}), replayed=True) == run_id
    publish(other, 1)

    # Nor does a full quota.
    runs = count(database)
    database.execute("UPDATE graphwright.tenants SET max_queued = %s", (runs,))
    problem(start(one, "k4", params={"n": 4}), 429, "quota_exceeded")
    assert accepted(start(one, "k", params={"n": 1}), replayed=True) == run_id
    database.execute("UPDATE graphwright.tenants SET max_queued = NULL")
    accepted(start(one, "k4", params={"n": 4}))

    # Once it has expired it is free, for another request too.
    database.execute("UPDATE graphwright.idempotency_keys SET expires_at = now() WHERE key = 'k'")
    again = accepted(start(other, "k", params={"n": 9}))
    assert again != run_id
    assert accepted(start(one, "k", params={"n": 9}), replayed=True) == again

    # The answer says how the run stands by now.
    cancelled = one.post(f"/api/v1/runs/{again}/cancel").json()["status"]
    answer = start(one, "k", params={"n": 9})
    assert accepted(answer, replayed=True) == again
    assert answer.json()["status"] == cancelled == "cancelled"


def test_duplicates_at_once_are_one_run(
    apis: tuple[httpx.Client, httpx.Client], database: Connection
) -> None:
    """50 of each key over two processes, in batches that hold several of them."""
    publish(apis[0])
    keys = ["one", "two"]
    with ThreadPoolExecutor(32) as threads:
        asked = [
            (key, threads.submit(start, apis[number % 2], key, params={"n": 1}))
            for number in range(50)
            for key in keys
        ]
        answers = [(key, answer.result()) for key, answer in asked]
    assert {answer.status_code for _, answer in answers} == {202}
    for key in keys:
        of_key = [answer for each, answer in answers if each == key]
        assert len({answer.json()["run_id"] for answer in of_key}) == 1
        assert sum("Idempotency-Replayed" not in answer.headers for answer in of_key) == 1
    assert count(database) == len(keys)
    queued = database.execute("SELECT count(*) AS n FROM graphwright.run_queue").fetchone()
    assert queued == {"n": len(keys)}


def test_refusals(apis: tuple[httpx.Client, httpx.Client], database: Connection) -> None:
    one, other = apis
    publish(one, concurrency={"limit": 1, "on_conflict": "reject"})
    accepted(start(one, "k"))
    told = problem(start(other), 409, "concurrency_conflict")
    assert "concurrency" in told["detail"]
    assert accepted(start(other, "k"), replayed=True)

    publish(one)
    before_midnight()
    database.execute("UPDATE graphwright.tenants SET max_runs_per_day = 2")
    accepted(start(one))  # the first that counts: before there was no quota
    accepted(start(one))
    told = problem(start(other), 429, "quota_exceeded")
    assert "day" in told["detail"]

    database.execute("UPDATE graphwright.tenants SET max_runs_per_day = NULL, max_queued = 3")
    told = problem(start(other), 429, "quota_exceeded")
    assert "queued" in told["detail"]
    assert count(database) == 3
