"""The inbox and the notices of runs over HTTP."""

import base64
from typing import Any

import httpx
import orjson
import pytest

from foundation.database import connect
from foundation.ids import new_id
from foundation.settings import Settings
from tests.dynamic_jobs.run_rows import RunRows
from tests.live_api.conftest import ClientFor
from tests.live_api.test_problems import check
from tests.live_api.test_runs import environment, pointers
from tests.live_api.test_triggers import publish

__all__ = ["environment"]

PATH = "/api/v1/deliveries"
HOOK = {"type": "webhook", "scheme": "none"}
REFUSED: dict[str, Any] = {"verdict": "refused", "reason": "the signature is wrong", "body": None}


def deliver(settings: Settings, trigger: dict[str, Any], **more: Any) -> str:
    """Put a call of tenant ``acme``'s trigger into the inbox."""
    delivery_id = new_id()
    row: dict[str, Any] = {
        "tenant": "acme",
        "delivery_id": delivery_id,
        "trigger_id": trigger["trigger_id"],
        "graph_id": trigger["graph_id"],
        "received_at": "2030-01-31T00:00:00Z",
        "headers": orjson.dumps({"content-type": "application/json"}).decode(),
        "query": "{}",
        "body": b"{}",
        **more,
    }
    columns, values = ", ".join(row), ", ".join(f"%({name})s" for name in row)
    statement: Any = f"INSERT INTO graphwright.deliveries ({columns}) VALUES ({values})"
    with connect(settings.database_url) as connection:
        connection.execute(statement, row)
    return delivery_id


def listed(client: httpx.Client, **query: Any) -> list[str]:
    page = client.get(PATH, params=query).json()
    assert page["next_cursor"] is None
    return [each["delivery_id"] for each in page["items"]]


def test_a_delivery_is_listed_and_read(client: httpx.Client, settings: Settings) -> None:
    hook = publish(client, {"hook": HOOK})["hook"]
    run_id = new_id()
    delivery_id = deliver(
        settings,
        hook,
        verdict="started",
        run_id=run_id,
        decided_at="2030-01-31T00:00:00.125Z",
        sender_id="abc",
        query='{"a": ["1", "2"], "b": "3"}',
        body='{"n": "ä"}'.encode(),
    )
    (item,) = client.get(PATH).json()["items"]
    assert item == {
        "delivery_id": delivery_id,
        "trigger_id": hook["trigger_id"],
        "trigger": "hook",
        "graph_id": hook["graph_id"],
        "graph": "digest",
        "received_at": "2030-01-31T00:00:00Z",
        "verdict": "started",
        "reason": None,
        "run_id": run_id,
        "latency_ms": 125,
        "sender_id": "abc",
        "redelivery_of": None,
        "size": 11,
    }
    assert client.get(f"{PATH}/{delivery_id}").json() == {
        **item,
        "headers": {"content-type": "application/json"},
        "query": {"a": ["1", "2"], "b": "3"},
        "body": '{"n": "ä"}',
        "body_encoding": "utf-8",
    }
    publish(client, {})
    (gone,) = client.get(PATH, params={"trigger": hook["trigger_id"]}).json()["items"]
    assert gone == {**item, "trigger": None}


@pytest.mark.parametrize(
    ("body", "told", "encoding"),
    [
        (b"", "", "utf-8"),
        (b"\xff\x00", base64.b64encode(b"\xff\x00").decode(), "base64"),
        (b"a\x00b", "a\0b", "utf-8"),
        (None, None, None),
    ],
)
def test_a_body_is_shown_as_it_is(
    client: httpx.Client,
    settings: Settings,
    body: bytes | None,
    told: str | None,
    encoding: str | None,
) -> None:
    hook = publish(client, {"hook": HOOK})["hook"]
    found = client.get(f"{PATH}/{deliver(settings, hook, body=body)}").json()
    assert (found["body"], found["body_encoding"]) == (told, encoding)
    assert found["size"] == (None if body is None else len(body))


def test_deliveries_are_filtered_and_paged(client: httpx.Client, settings: Settings) -> None:
    one = publish(client, {"hook": HOOK, "second": HOOK})
    other = publish(client, {"hook": HOOK}, name="other")["hook"]
    first = deliver(settings, one["hook"], verdict="rejected", reason="no key")
    second = deliver(settings, one["second"])
    third = deliver(settings, other)
    assert listed(client) == [third, second, first]
    assert listed(client, trigger=one["second"]["trigger_id"]) == [second]
    assert listed(client, trigger=new_id()) == []
    assert listed(client, graph="digest") == [second, first]
    assert listed(client, graph=other["graph_id"]) == [third]
    assert listed(client, verdict="rejected") == [first]
    assert listed(client, graph="other", verdict="rejected") == []
    page = client.get(PATH, params={"limit": 2}).json()
    assert [each["delivery_id"] for each in page["items"]] == [third, second]
    assert listed(client, limit=2, cursor=page["next_cursor"]) == [first]
    check(client.get(PATH, params={"graph": "absent"}), 404, "not_found")
    for query, pointer in (
        ({"verdict": "lost"}, "/verdict"),
        ({"trigger": "hook"}, "/trigger"),
        ({"cursor": "?"}, "/cursor"),
        ({"limit": 201}, "/limit"),
    ):
        assert pointers(client.get(PATH, params=query)) == [pointer]


def test_a_call_is_delivered_again(client: httpx.Client, settings: Settings) -> None:
    hook = publish(client, {"hook": HOOK})["hook"]
    first = deliver(settings, hook, verdict="rejected", reason="no key")
    answers = [client.post(f"{PATH}/{first}/redeliver") for _ in range(2)]
    for answer in answers:
        assert answer.status_code == 202
        new = answer.json()
        assert (new["verdict"], new["reason"], new["redelivery_of"]) == ("pending", None, first)
        assert answer.headers["Location"] == f"{PATH}/{new['delivery_id']}"
        assert client.get(answer.headers["Location"]).json() == new
    assert listed(client) == [*(each.json()["delivery_id"] for each in answers[::-1]), first]


def test_what_cannot_be_delivered_again(client: httpx.Client, settings: Settings) -> None:
    hook = publish(client, {"hook": HOOK})["hook"]
    refused, kept = deliver(settings, hook, **REFUSED), deliver(settings, hook)
    problem = check(client.post(f"{PATH}/{refused}/redeliver"), 409, "conflict")
    assert problem["delivery_id"] == refused
    publish(client, {})
    check(client.post(f"{PATH}/{kept}/redeliver"), 409, "conflict")
    assert listed(client) == [kept, refused]


def test_an_inbox_is_its_tenants(client_for: ClientFor, settings: Settings) -> None:
    owner, other = client_for(), client_for("other")
    hook = publish(owner, {"hook": HOOK})["hook"]
    delivery_id = deliver(settings, hook)
    assert listed(other) == []
    assert listed(other, trigger=hook["trigger_id"]) == []
    check(other.get(PATH, params={"graph": hook["graph_id"]}), 404, "not_found")
    for unknown in (delivery_id, new_id(), "a'b"):
        check(other.get(f"{PATH}/{unknown}"), 404, "not_found")
        check(other.post(f"{PATH}/{unknown}/redeliver"), 404, "not_found")
    assert listed(owner) == [delivery_id]
    reader = client_for(scopes=("triggers:read",))
    assert listed(reader) == [delivery_id]
    check(reader.post(f"{PATH}/{delivery_id}/redeliver"), 403, "forbidden")


def test_the_notices_of_a_run_are_listed(client_for: ClientFor, settings: Settings) -> None:
    rows = RunRows(settings.database_url)
    path = f"/api/v1/runs/{rows.run_id}/notices"
    client = client_for()
    assert client.get(path).json() == {"items": [], "next_cursor": None}
    with connect(settings.database_url) as connection:
        connection.execute(
            "INSERT INTO graphwright.notices (tenant, run_id, name, lane, attempts, reason,"
            " created_at, next_at) VALUES (%s, %s, 'tell', 'url', 2, 'it answered 500',"
            " '2030-01-31T00:00:00Z', '2030-01-31T00:01:00Z')",
            (rows.tenant, rows.run_id),
        )
    assert client.get(path).json()["items"] == [
        {
            "name": "tell",
            "status": "pending",
            "attempts": 2,
            "next_at": "2030-01-31T00:01:00Z",
            "started": None,
            "reason": "it answered 500",
            "created_at": "2030-01-31T00:00:00Z",
            "ended_at": None,
        }
    ]
    other = client_for("other")
    for unknown in (rows.run_id, new_id(), "x"):
        check(other.get(f"/api/v1/runs/{unknown}/notices"), 404, "not_found")
