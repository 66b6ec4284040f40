"""Starting many runs by one request over HTTP: all of them, or none."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from foundation.database import Connection, connect
from foundation.ids import TenantId, new_id
from foundation.settings import Settings
from graph_defs.store import GraphStore
from graph_defs.versions import GraphVersion
from tests.live_api.conftest import ClientFor, TokenFor
from tests.live_api.test_graphs import document
from tests.live_api.test_problems import check
from tests.live_api.test_runs import environment, pointers, publish
from tests.live_api.test_server import api_process, started
from tests.services import free_port

__all__ = ["environment"]

BATCH = "/api/v1/runs/batch"
COUNTED = """
SELECT (SELECT count(*) FROM graphwright.runs) AS ours, (SELECT count(*) FROM runs) AS dagsters,
       (SELECT count(*) FROM graphwright.run_queue) AS queued
"""

KEY = """
INSERT INTO graphwright.idempotency_keys VALUES ('acme', 'k/250', %s, '', now())
"""
HELD_UP = """
SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
OTHERS = """
SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def send(client: httpx.Client, *runs: Any, key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post(BATCH, json={"runs": list(runs)}, headers=headers)


def run_ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 202, answer.text
    return [each["run_id"] for each in answer.json()["items"]]


def counted(connection: Connection) -> set[int]:
    row = connection.execute(COUNTED).fetchone()
    assert row is not None
    return set(row.values())


@pytest.fixture
def database(settings: Settings) -> Generator[Connection]:
    with connect(settings.database_url) as connection:
        yield connection


def test_runs_in_their_order(client: httpx.Client) -> None:
    publish(client)
    other = publish(client, "other")
    answer = send(
        client,
        {"graph": "digest", "params": {"n": 5}, "priority": 3},
        {"graph": other["graph_id"], "not_before": "2090-01-01T00:00:00Z", "live": False},
        {"graph": "digest"},
    )
    first, second, third = (client.get(f"/api/v1/runs/{each}").json() for each in run_ids(answer))
    assert (first["graph"], first["params"], first["priority"]) == ("digest", {"n": 5}, 3)
    assert (second["graph"], second["live"], third["params"]) == ("other", False, {"n": 3})
    assert second["not_before"] == "2090-01-01T00:00:00Z"
    item = answer.json()["items"][0]
    assert (item["status"], item["replayed"], item["links"]) == ("queued", False, first["links"])
    assert run_ids(answer)[::-1] == [
        each["run_id"] for each in client.get("/api/v1/runs").json()["items"]
    ]


def test_a_thousand(client: httpx.Client, database: Connection) -> None:
    publish(client)
    runs = [{"graph": "digest", "params": {"n": n}} for n in range(1_000)]
    found = run_ids(send(client, *runs))
    assert len(set(found)) == 1_000
    assert counted(database) == {1_000}
    assert client.get(f"/api/v1/runs/{found[777]}").json()["params"] == {"n": 777}
    assert pointers(send(client, *runs, runs[0])) == ["/runs"]
    assert pointers(send(client)) == ["/runs"]


def test_every_fault_in_one_answer(client: httpx.Client, database: Connection) -> None:
    publish(client)
    answer = send(
        client,
        {"graph": "digest"},
        {"graph": "nothing"},
        {"graph": "digest", "params": {"n": "x", "m": 1}},
        {"graph": new_id()},
    )
    faults = sorted((fault["pointer"], fault["code"]) for fault in answer.json()["errors"])
    assert [pointer for pointer, _ in faults] == [
        "/runs/1/graph", "/runs/2/params/m", "/runs/2/params/n", "/runs/3/graph",
    ]  # fmt: skip
    assert faults[0][1] == "not_found"
    assert counted(database) == {0}


BAD_BODIES: list[tuple[Any, list[str]]] = [
    ({}, ["/runs"]),
    ({"runs": [{}], "more": 1}, ["/more", "/runs/0/graph"]),
    ({"runs": [{"graph": "digest", "priority": "x"}, 3]}, ["/runs/0/priority", "/runs/1"]),
    ({"runs": [{"graph": "digest", "idempotency_key": ""}]}, ["/runs/0/idempotency_key"]),
    ({"runs": [{"graph": "digest", "idempotency_key": "a b"}]}, ["/runs/0/idempotency_key"]),
    (
        {"runs": [{"graph": "digest", "idempotency_key": "a"}] * 3},
        ["/runs/1/idempotency_key", "/runs/2/idempotency_key"],
    ),
    ([], [""]),
]


@pytest.mark.parametrize(("body", "faults"), BAD_BODIES)
def test_bad_bodies(client: httpx.Client, body: Any, faults: list[str]) -> None:
    assert sorted(pointers(client.post(BATCH, json=body))) == faults


def test_sent_again(client: httpx.Client, database: Connection) -> None:
    publish(client)
    runs = [{"graph": "digest", "params": {"n": n}} for n in range(12)]
    first = run_ids(send(client, *runs, key="k"))
    client.post(f"/api/v1/runs/{first[3]}/cancel").raise_for_status()
    again = send(client, *runs, key="k")
    assert run_ids(again) == first
    assert all(each["replayed"] for each in again.json()["items"])
    assert again.json()["items"][3]["status"] == "cancelled"
    single = client.post(
        "/api/v1/graphs/digest/runs", json={"params": {"n": 4}}, headers={"Idempotency-Key": "k/4"}
    )
    assert single.json()["run_id"] == first[4]
    other = send(client, runs[1], key="k")
    check(other, 409, "idempotency_key_reused")
    assert other.json()["run_id"] == first[0]
    # What was sent before is the same run, and the rest is new.
    more = send(client, *runs, {"graph": "digest"}, key="k")
    assert run_ids(more)[:12] == first
    assert [each["replayed"] for each in more.json()["items"]] == [True] * 12 + [False]
    assert counted(database) == {12, 13}  # the one that was cancelled is off the queue


def test_sent_again_after_the_graph_has_changed(client: httpx.Client) -> None:
    publish(client)
    first = run_ids(send(client, {"graph": "digest", "params": {"n": 1}}, key="k"))
    given = document() | {"params": {"type": "object", "maxProperties": 0}}
    client.post("/api/v1/graphs", json=given).raise_for_status()
    assert run_ids(send(client, {"graph": "digest", "params": {"n": 1}}, key="k")) == first
    assert pointers(send(client, {"graph": "digest", "params": {"n": 1}})) == ["/runs/0/params"]


def test_an_item_has_its_own_key(client: httpx.Client) -> None:
    publish(client)
    (single,) = run_ids(send(client, {"graph": "digest", "idempotency_key": "mine"}))
    both = send(
        client, {"graph": "digest"}, {"graph": "digest", "idempotency_key": "mine"}, key="k"
    )
    assert run_ids(both)[1] == single
    assert [each["replayed"] for each in both.json()["items"]] == [False, True]


def test_the_same_batch_at_once(client: httpx.Client, database: Connection) -> None:
    publish(client)
    runs = [{"graph": "digest", "params": {"n": n}} for n in range(50)]
    with ThreadPoolExecutor(6) as threads:
        sent = [threads.submit(send, client, *runs, key="k") for _ in range(6)]
        answers = [each.result() for each in sent]
    assert len({tuple(run_ids(answer)) for answer in answers}) == 1
    assert counted(database) == {50}


def test_overlapping_batches_at_once(client: httpx.Client, database: Connection) -> None:
    """Their keys are locked in one order, so none of them has to give way."""
    publish(client)
    runs = [{"graph": "digest", "idempotency_key": f"key-{n}"} for n in range(40)]
    orders = [runs, runs[::-1], runs[20:] + runs[:20], runs[::2] + runs[1::2]]
    with ThreadPoolExecutor(4) as threads:
        sent = [threads.submit(send, client, *order) for order in orders]
        answers = [each.result() for each in sent]
    assert {frozenset(run_ids(answer)) for answer in answers} == {frozenset(run_ids(answers[0]))}
    assert counted(database) == {40}


@pytest.mark.parametrize("quota", ["max_queued", "max_runs_per_day"])
def test_a_quota_refuses_all(client: httpx.Client, database: Connection, quota: str) -> None:
    publish(client)
    change: Any = f"UPDATE graphwright.tenants SET {quota} = 5 WHERE tenant = 'acme'"
    database.execute(change)
    answer = send(client, *[{"graph": "digest"}] * 6)
    assert (answer.status_code, answer.json()["quota"]) == (429, quota)
    assert counted(database) == {0}
    assert len(run_ids(send(client, *[{"graph": "digest"}] * 5))) == 5


def test_concurrency_refuses_all(client: httpx.Client, database: Connection) -> None:
    given = document() | {"concurrency": {"limit": 2, "on_conflict": "reject"}}
    client.post("/api/v1/graphs", json=given).raise_for_status()
    check(send(client, *[{"graph": "digest"}] * 3), 409, "concurrency_conflict")
    assert counted(database) == {0}
    assert len(run_ids(send(client, *[{"graph": "digest"}] * 2))) == 2
    states = database.execute("SELECT DISTINCT state FROM graphwright.run_queue").fetchall()
    assert states == [{"state": "ready"}]  # they have their places


def test_the_newest_cancel_those_before(client: httpx.Client) -> None:
    given = document() | {"concurrency": {"limit": 1, "on_conflict": "cancel_running"}}
    client.post("/api/v1/graphs", json=given).raise_for_status()
    found = run_ids(send(client, *[{"graph": "digest"}] * 3))
    states = [client.get(f"/api/v1/runs/{each}").json()["status"] for each in found]
    assert states == ["cancelled", "cancelled", "queued"]


def test_graphs_that_nobody_has_are_looked_for_once(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    published = GraphStore.published

    async def noted(self: GraphStore, tenant: TenantId, graph: str) -> GraphVersion:
        asked.append(graph)
        return await published(self, tenant, graph)

    monkeypatch.setattr(GraphStore, "published", noted)
    check(send(client, {"graph": "a"}, {"graph": "b"}), 422, "invalid")
    assert asked == ["a", "b"]


def test_other_tenants_graphs(client: httpx.Client, client_for: ClientFor) -> None:
    graph_id = publish(client)["graph_id"]
    others = client_for("other")
    unknown = new_id()
    answers = [send(others, {"graph": graph}) for graph in (graph_id, "digest", unknown)]
    texts = {
        str(answer.json()["errors"]).replace(graph, "<graph>")
        for answer, graph in zip(answers, (graph_id, "digest", unknown), strict=True)
    }
    assert len(texts) == 1
    assert client.get("/api/v1/runs").json()["items"] == []
    # A key is its tenant's own.
    ours = run_ids(send(client, {"graph": "digest"}, key="k"))
    publish(others)
    assert run_ids(send(others, {"graph": "digest"}, key="k")) != ours


@pytest.mark.soak
def test_killed_in_the_middle_and_sent_again(
    settings: Settings, token_for: TokenFor, database: Connection
) -> None:
    """A batch whose request died is there whole or not at all; sent again, it is there once."""
    body = {"runs": [{"graph": "digest", "params": {"n": n}} for n in range(300)]}
    headers = {"Authorization": f"Bearer {token_for()}", "Idempotency-Key": "k"}

    def serve(*, kill: bool) -> list[str]:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        with api_process(settings, port) as process, httpx.Client(base_url=url) as client:
            assert started(process)
            client.headers.update(headers)
            publish(client)
            if not kill:
                return run_ids(client.post(BATCH, json=body, timeout=60))
            with (
                ThreadPoolExecutor(1) as threads,
                connect(settings.database_url) as blocker,
                blocker.transaction(),
            ):
                # It waits for this one when it has some of its keys already.
                blocker.execute(KEY, (new_id(),))
                sent = threads.submit(client.post, BATCH, json=body, timeout=60)
                while not database.execute(HELD_UP).fetchall():
                    assert not sent.done()
                process.kill()
                process.wait()
                with pytest.raises(httpx.TransportError):
                    sent.result()
                blocker.execute("DELETE FROM graphwright.idempotency_keys")
        while database.execute(OTHERS).fetchall():
            pass
        return []

    serve(kill=True)
    assert counted(database) == {0}
    made = serve(kill=False)
    assert counted(database) == {300}
    assert serve(kill=False) == made
    assert counted(database) == {300}
