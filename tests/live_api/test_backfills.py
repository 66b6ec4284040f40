"""Backfills over HTTP: asked for, followed, cancelled."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from foundation.database import connect
from foundation.ids import new_id
from foundation.settings import Settings
from tests.live_api.conftest import ClientFor
from tests.live_api.test_problems import check
from tests.live_api.test_runs import pointers
from tests.live_api.test_triggers import HOOK, publish

PATH = "/api/v1/backfills"
HOURLY = {"type": "timer", "every": "1h"}
DAY = {"from": "2026-01-31T00:00:00Z", "to": "2026-02-01T00:00:00Z"}


def ask(
    client: httpx.Client, trigger: dict[str, Any], key: str | None = None, **body: Any
) -> httpx.Response:
    path = f"/api/v1/triggers/{trigger['trigger_id']}/backfills"
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post(path, json={**DAY, **body}, headers=headers)


def test_a_backfill_is_asked_for_and_read(client: httpx.Client) -> None:
    hourly = publish(client, {"hourly": HOURLY})["hourly"]
    client.post(f"/api/v1/triggers/{hourly['trigger_id']}/disable").raise_for_status()
    made = ask(client, hourly, max_running=2)
    assert made.status_code == 202
    backfill = made.json()
    assert made.headers["Location"] == f"{PATH}/{backfill['backfill_id']}"
    assert "Idempotency-Replayed" not in made.headers
    assert client.get(made.headers["Location"]).json() == backfill
    assert client.get(PATH).json()["items"][0]["graph"] == hourly["graph"]
    assert datetime.fromisoformat(backfill.pop("created_at")).tzinfo is not None
    assert backfill == {
        "backfill_id": backfill["backfill_id"],
        "trigger_id": hourly["trigger_id"],
        "trigger": "hourly",
        "graph": hourly["graph"],
        "graph_id": hourly["graph_id"],
        "from_at": DAY["from"],
        "to_at": DAY["to"],
        "max_running": 2,
        "status": "running",
        "total": 24,
        "made": 0,
        "refused": 0,
        "reason": None,
        "author": "ann",
        "ended_at": None,
        "runs": {},
    }


def test_a_request_with_the_same_key_is_the_same_backfill(client_for: ClientFor) -> None:
    client, other = client_for(), client_for("other")
    timers = publish(client, {"hourly": HOURLY, "often": {**HOURLY, "every": "1m"}})
    hourly = timers["hourly"]
    made = ask(client, hourly, "k1", max_running=2)
    assert "Idempotency-Replayed" not in made.headers
    # Also where it would be refused by now: the timer is another one.
    publish(client, {"hourly": {**HOURLY, "every": "60d"}, "often": {**HOURLY, "every": "1m"}})
    same = {"from": "2026-01-31T01:00:00+01:00", "max_running": 2}
    again = ask(client, hourly, "k1", **same)
    assert (again.status_code, again.json()) == (202, made.json())
    assert again.headers["Location"] == made.headers["Location"]
    assert again.headers["Idempotency-Replayed"] == "true"
    for trigger, body in (
        (timers["often"], same),
        (hourly, {**same, "max_running": 3}),
        (hourly, {**same, "from": "2026-01-31T01:00:00Z"}),
        (hourly, {**same, "to": "2026-01-31T12:00:00Z"}),
    ):
        refused = ask(client, trigger, "k1", **body)
        check(refused, 409, "idempotency_key_reused")
        assert refused.json()["backfill_id"] == made.json()["backfill_id"]
    assert len(client.get(PATH).json()["items"]) == 1

    theirs = ask(other, publish(other, {"hourly": HOURLY})["hourly"], "k1")
    assert theirs.json()["backfill_id"] != made.json()["backfill_id"]
    for key in ("", "a b", "k" * 256):
        assert ask(client, timers["often"], key).status_code == 422
    assert ask(client, timers["often"], "k2").status_code == 202


def test_backfills_are_listed_in_pages(client: httpx.Client) -> None:
    hourly = publish(client, {"hourly": HOURLY})["hourly"]
    made = [ask(client, hourly).json()["backfill_id"] for _ in range(3)]
    page = client.get(PATH, params={"limit": 2}).json()
    rest = client.get(PATH, params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert rest["next_cursor"] is None
    found = [each["backfill_id"] for each in (*page["items"], *rest["items"])]
    assert found == made[::-1]
    assert pointers(client.get(PATH, params={"cursor": "?"})) == ["/cursor"]


def test_a_backfill_is_cancelled(client: httpx.Client, settings: Settings) -> None:
    hourly = publish(client, {"hourly": HOURLY})["hourly"]
    path = f"{PATH}/{ask(client, hourly).json()['backfill_id']}"
    for _ in range(2):
        cancelled = client.post(f"{path}/cancel")
        assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelling")
    with connect(settings.database_url) as connection:
        connection.execute(
            "UPDATE graphwright.backfills SET status = 'cancelled', ended_at = now()"
        )
    check(client.post(f"{path}/cancel"), 409, "conflict")


def test_what_cannot_be_backfilled(client: httpx.Client) -> None:
    found = publish(client, {"hook": HOOK, "hourly": HOURLY, "often": {**HOURLY, "every": "1m"}})
    check(ask(client, found["hook"]), 409, "conflict")
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"to": soon}, "/to"),
        ({"to": DAY["from"]}, "/to"),
        ({"to": None}, "/to"),
        ({"from": "2026-01-31T00:00:00"}, "/from"),
        ({"from": "0001-01-01T00:00:00+14:00"}, "/from"),
        ({"from": "2026-01-31T23:30:00Z"}, "/from"),
        ({"max_running": 0}, "/max_running"),
        ({"max_running": 1_001}, "/max_running"),
        ({"max_running": "1"}, "/max_running"),
        ({"start": DAY["from"]}, "/start"),
    ]
    for body, pointer in wrong:
        assert pointers(ask(client, found["hourly"], **body)) == [pointer], body
    assert pointers(ask(client, found["often"], **{"from": "2025-01-01T00:00:00Z"})) == ["/from"]
    assert client.get(PATH).json()["items"] == []


def test_a_backfill_is_its_tenants(client_for: ClientFor) -> None:
    owner, other = client_for(), client_for("other")
    hourly = publish(owner, {"hourly": HOURLY})["hourly"]
    backfill = ask(owner, hourly).json()
    check(ask(other, hourly), 404, "not_found")
    assert other.get(PATH).json()["items"] == []
    for unknown in (backfill["backfill_id"], new_id(), "a'b"):
        check(other.get(f"{PATH}/{unknown}"), 404, "not_found")
        check(other.post(f"{PATH}/{unknown}/cancel"), 404, "not_found")
    reader = client_for(scopes=("triggers:read",))
    assert reader.get(f"{PATH}/{backfill['backfill_id']}").json() == backfill
    check(ask(reader, hourly), 403, "forbidden")
    check(reader.post(f"{PATH}/{backfill['backfill_id']}/cancel"), 403, "forbidden")
