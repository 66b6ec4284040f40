"""A graph that somebody keeps locked: whoever publishes it is told, and nobody else waits."""

import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from foundation.database import Connection, connect
from foundation.settings import Settings
from tests.live_api.conftest import ClientFor
from tests.live_api.test_graphs import document, publish
from tests.live_api.test_problems import check

_WAITING = """
SELECT count(*) AS count FROM pg_locks
WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@contextmanager
def locked(settings: Settings, name: str) -> Generator[Connection]:
    with connect(settings.database_url) as connection, connection.transaction():
        connection.execute(
            "SELECT FROM graphwright.graphs WHERE tenant = 'acme' AND name = %s FOR UPDATE", (name,)
        )
        with connect(settings.database_url) as looking:
            yield looking


def waiting(connection: Connection) -> int:
    row = connection.execute(_WAITING).fetchone()
    assert row is not None
    return row["count"]


@pytest.mark.timeout(60)
def test_others_are_not_kept_waiting(client_for: ClientFor, settings: Settings) -> None:
    client, other = client_for("acme"), client_for("other")
    assert publish(client, "slow").status_code == publish(other, "quick").status_code == 201
    run_id = other.post("/api/v1/graphs/quick/runs", json={}).json()["run_id"]
    served = threading.Event()

    def post(number: int) -> httpx.Response:
        """Until the others are served, however long that takes: after 5 s it is refused."""
        while True:
            answer = publish(client, "slow", number)
            if served.is_set() or answer.status_code != 503:
                return answer

    with ThreadPoolExecutor(12) as threads, locked(settings, "slow") as looking:
        posts = [threads.submit(post, number) for number in range(12)]

        def wait_until_some_wait() -> None:
            while waiting(looking) < 3:
                assert not any(post.done() for post in posts)

        wait_until_some_wait()
        for _ in range(3):
            for path in ("graphs/quick", f"runs/{run_id}", "graphs", "runs"):
                assert other.get(f"/api/v1/{path}").status_code == 200
            assert other.get("/readyz").status_code == 200
        wait_until_some_wait()  # still, or again
        served.set()
        refused = posts[0].result()
        assert refused.status_code == 503
    problem = check(refused, 503, "unavailable")
    assert "changing" in str(problem["detail"])
    assert publish(client, "slow", 99).status_code == 201
    assert client.get("/api/v1/graphs/slow").json()["document"] == document("slow", 99)


@pytest.mark.timeout(60)
def test_whoever_drafts_is_told_too(client: httpx.Client, settings: Settings) -> None:
    assert publish(client, "slow").status_code == 201
    with locked(settings, "slow"):
        refused = client.put("/api/v1/graphs/slow/draft", json=document("slow", 2))
    assert "changing" in str(check(refused, 503, "unavailable")["detail"])
    assert client.put("/api/v1/graphs/slow/draft", json=document("slow", 2)).status_code == 201


def test_a_graph_that_a_run_is_listing_is_published_at_once(
    client: httpx.Client, settings: Settings
) -> None:
    """Each would wait for what the other has, if it had one of its timers too."""
    graph = publish(client, "timed").json()["graph_id"]
    with connect(settings.database_url) as connection:
        connection.execute("DELETE FROM graphwright.recent_graphs")
        with connection.transaction():
            connection.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('graphwright/recent/' || %s, 0))",
                (graph,),
            )
            connection.execute(
                "INSERT INTO graphwright.recent_graphs (graph_id, tenant) VALUES (%s, 'acme')",
                (graph,),
            )
            assert publish(client, "timed", 2).status_code == 201
        rows = connection.execute("SELECT graph_id::text FROM graphwright.recent_graphs").fetchall()
    assert [row["graph_id"] for row in rows] == [graph]
