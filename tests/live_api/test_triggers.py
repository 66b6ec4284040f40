"""Triggers over HTTP: their addresses, their switches, due times to come, fired by hand."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from foundation.ids import new_id
from foundation.settings import Settings
from tests.clock import let_pass
from tests.live_api.conftest import ClientFor
from tests.live_api.test_graphs import document
from tests.live_api.test_problems import check
from tests.live_api.test_runs import environment, pointers

__all__ = ["environment"]

HOOK = {"type": "webhook", "scheme": "github", "secret": "key"}
NIGHTLY = {"type": "timer", "cron": "30 2 * * *", "timezone": "Europe/Berlin"}
PARAMS = {
    "type": "object",
    "properties": {"at": {"type": "string"}, "n": {"type": "integer"}},
    "additionalProperties": False,
}


@pytest.fixture(autouse=True)
def not_just_before_it_is_due() -> None:
    let_pass(2, 30, "Europe/Berlin")  # NIGHTLY


def publish(
    client: httpx.Client, triggers: Mapping[str, Any], name: str = "digest"
) -> dict[str, dict[str, Any]]:
    """Publish a graph with these triggers; they, by their names, as the API lists them."""
    given = {**document(name), "params": PARAMS, "triggers": triggers}
    client.post("/api/v1/graphs", json=given).raise_for_status()
    page = client.get(f"/api/v1/graphs/{name}/triggers").json()
    assert page["next_cursor"] is None
    return {each["name"]: each for each in page["items"]}


def ask(
    client: httpx.Client, trigger: Mapping[str, Any], what: str, **given: Any
) -> httpx.Response:
    return client.post(f"/api/v1/triggers/{trigger['trigger_id']}/{what}", **given)


def fires(client: httpx.Client, trigger: Mapping[str, Any], **query: Any) -> httpx.Response:
    return client.get(f"/api/v1/triggers/{trigger['trigger_id']}/fires", params=query)


def test_a_graphs_triggers_are_listed_with_their_addresses(
    client: httpx.Client, settings: Settings
) -> None:
    found = publish(client, {"nightly": NIGHTLY, "hook": HOOK})
    assert list(found) == ["hook", "nightly"]
    hook, nightly = found.values()
    graph = client.get("/api/v1/graphs/digest").json()
    base, address = hook.pop("url").rsplit("/", 1)
    assert base == f"{settings.hooks_url}/hooks"
    assert len(address) == 32
    for each in (hook, nightly):
        assert datetime.fromisoformat(each.pop("created_at")).tzinfo is not None
        assert each.pop("updated_at")
        assert each.pop("trigger_id")
    common = {
        "graph": "digest",
        "graph_id": graph["graph_id"],
        "enabled": True,
        "last_fault": None,
        "last_fault_at": None,
    }
    assert hook == {
        **common,
        "name": "hook",
        "type": "webhook",
        "scheme": "github",
        "secret": "key",
        "next_due_at": None,
        "config": HOOK,
    }
    due_at = datetime.fromisoformat(nightly.pop("next_due_at"))
    assert timedelta(0) < due_at - datetime.now(UTC) <= timedelta(hours=25)
    assert nightly == {
        **common,
        "name": "nightly",
        "type": "timer",
        "url": None,
        "scheme": None,
        "secret": None,
        "config": NIGHTLY,
    }


def test_the_base_of_addresses_is_a_setting(settings: Settings) -> None:
    assert settings.hooks_url == f"http://127.0.0.1:{settings.hooks_port}"
    public = settings.model_copy(update={"hooks_public_url": "https://hooks.example.org/"})
    assert public.hooks_url == "https://hooks.example.org"


def test_a_trigger_is_read_by_its_id_and_keeps_it(client: httpx.Client) -> None:
    hook = publish(client, {"hook": HOOK})["hook"]
    path = f"/api/v1/triggers/{hook['trigger_id']}"
    assert client.get(path).json() == hook
    changed = publish(client, {"hook": {**HOOK, "filter": "${{ true }}"}})["hook"]
    assert (changed["trigger_id"], changed["url"]) == (hook["trigger_id"], hook["url"])
    assert changed["config"] != hook["config"]
    publish(client, {})
    check(client.get(path), 404, "not_found")


@pytest.mark.parametrize("name", ["hook", "nightly"])
def test_a_trigger_is_disabled_and_enabled(client: httpx.Client, name: str) -> None:
    trigger = publish(client, {"hook": HOOK, "nightly": NIGHTLY})[name]
    for _ in range(2):
        disabled = ask(client, trigger, "disable")
        assert disabled.status_code == 200
        assert disabled.json() == {**trigger, "enabled": False, "next_due_at": None}
    changed = {"hook": {**HOOK, "dedupe": "1h"}, "nightly": {**NIGHTLY, "catch_up": "all"}}
    published = publish(client, changed)[name]
    assert (published["config"], published["enabled"]) == (changed[name], False)
    for _ in range(2):
        enabled = ask(client, trigger, "enable").json()
        assert enabled == {**published, "enabled": True, "next_due_at": trigger["next_due_at"]}


def test_due_times_to_come_are_shown_in_utc_and_as_the_clock_has_them(client: httpx.Client) -> None:
    """Around the night in which Berlin's clock goes from 2:00 to 3:00."""
    nightly = publish(client, {"nightly": NIGHTLY})["nightly"]
    answer = fires(client, nightly, count=3, after="2030-03-29T12:00:00Z")
    assert answer.status_code == 200
    assert answer.json()["timezone"] == "Europe/Berlin"
    assert [(each["due_at"], each["due_at_local"]) for each in answer.json()["items"]] == [
        ("2030-03-30T01:30:00Z", "2030-03-30T02:30:00+01:00"),
        ("2030-03-31T01:00:00Z", "2030-03-31T03:00:00+02:00"),
        ("2030-04-01T00:30:00Z", "2030-04-01T02:30:00+02:00"),
    ]
    ask(client, nightly, "disable")
    items = fires(client, nightly).json()["items"]
    assert len(items) == 10, "of a disabled timer too"
    assert items[0]["due_at"] == nightly["next_due_at"]
    last = fires(client, nightly, count=1, after=items[8]["due_at"]).json()["items"]
    assert last == items[9:]


def test_jitter_is_shown_as_it_will_be(client: httpx.Client) -> None:
    timer = publish(client, {"often": {"type": "timer", "every": "1h", "jitter": "30m"}})["often"]
    first, again = (
        fires(client, timer, count=20, after=timer["next_due_at"]).json() for _ in range(2)
    )
    assert first == again
    late = [
        datetime.fromisoformat(each["fire_at"]) - datetime.fromisoformat(each["due_at"])
        for each in first["items"]
    ]
    assert all(timedelta(0) <= each < timedelta(minutes=30) for each in late)
    assert len(set(late)) > 1


def test_a_timer_that_ends_has_fewer_due_times(client: httpx.Client) -> None:
    ends = {**NIGHTLY, "not_after": "2030-01-02T00:00:00Z"}
    timer = publish(client, {"ends": ends})["ends"]
    found = fires(client, timer, after="2029-12-31T12:00:00Z").json()["items"]
    assert [each["due_at"] for each in found] == ["2030-01-01T01:30:00Z"]
    assert fires(client, timer, after="2031-01-01T00:00:00Z").json()["items"] == []


def test_what_cannot_be_previewed(client: httpx.Client) -> None:
    found = publish(client, {"hook": HOOK, "nightly": NIGHTLY})
    check(fires(client, found["hook"]), 409, "conflict")
    assert len(fires(client, found["nightly"], count=1_000).json()["items"]) == 1_000
    for query, pointer in (
        ({"count": 0}, "/count"),
        ({"count": 1_001}, "/count"),
        ({"after": "2030-01-01T00:00:00"}, "/after"),
        ({"after": "9999-12-31T23:59:59Z"}, "/after"),
        ({"after": "0001-01-01T00:00:00+14:00"}, "/after"),
    ):
        assert pointers(fires(client, found["nightly"], **query)) == [pointer], query


def test_a_timer_is_fired_by_hand(client: httpx.Client) -> None:
    config = {**NIGHTLY, "params": {"at": "${{ trigger.due_at }}", "n": 3}}
    timer = publish(client, {"nightly": config})["nightly"]
    ask(client, timer, "disable")
    began = datetime.now(UTC).replace(microsecond=0)
    fired = ask(client, timer, "fire")
    assert (fired.status_code, fired.json()["status"]) == (202, "queued")
    run = client.get(fired.headers["Location"]).json()
    due_at = run["trigger"]["due_at"]
    assert run["trigger"] == {
        "type": "timer",
        "name": "nightly",
        "trigger_id": timer["trigger_id"],
        "due_at": due_at,
        "manual": True,
    }
    assert began <= datetime.fromisoformat(due_at) <= datetime.now(UTC)
    assert run["params"] == {"at": due_at, "n": 3}
    assert run["author"] == "timer:nightly"
    assert ask(client, timer, "fire").json()["run_id"] != run["run_id"]
    assert client.get(f"/api/v1/triggers/{timer['trigger_id']}").json()["next_due_at"] is None


def test_firing_again_with_the_same_key_is_one_run(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its params differ, since it was due at another moment."""
    given = {"type": "timer", "every": "1h", "params": {"at": "${{ trigger.due_at }}"}}
    found = publish(client, {"one": given, "two": given})
    key = {"Idempotency-Key": new_id()}
    first = ask(client, found["one"], "fire", headers=key)
    second = datetime.fromisoformat(
        client.get(first.headers["Location"]).json()["trigger"]["due_at"]
    )

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "datetime":
            return second + timedelta(seconds=90)

    monkeypatch.setattr("live_api.triggers.datetime", Later)
    again = ask(client, found["one"], "fire", headers=key)
    assert (again.status_code, again.json()["run_id"]) == (202, first.json()["run_id"])
    assert again.headers["Idempotency-Replayed"] == "true"
    check(ask(client, found["two"], "fire", headers=key), 409, "idempotency_key_reused")
    by_hand = client.post("/api/v1/graphs/digest/runs", headers=key)
    check(by_hand, 409, "idempotency_key_reused")
    other = {"Idempotency-Key": new_id()}
    client.post("/api/v1/graphs/digest/runs", headers=other).raise_for_status()
    check(ask(client, found["one"], "fire", headers=other), 409, "idempotency_key_reused")


def test_what_cannot_be_fired(client: httpx.Client) -> None:
    broken = {"type": "timer", "every": "1h", "params": {"n": "${{ trigger.due_at }}"}}
    failing = {"type": "timer", "every": "1h", "params": {"n": "${{ 1 / 0 }}"}}
    found = publish(client, {"hook": HOOK, "broken": broken, "failing": failing})
    assert "redeliver" in str(check(ask(client, found["hook"], "fire"), 409, "conflict")["hint"])
    assert pointers(ask(client, found["broken"], "fire")) == ["/params/n"]
    check(ask(client, found["failing"], "fire"), 422, "timer_params_failed")
    assert client.get("/api/v1/runs").json()["items"] == []


def test_a_trigger_is_its_tenants(client_for: ClientFor) -> None:
    owner, other = client_for(), client_for("other")
    found = publish(owner, {"hook": HOOK, "nightly": NIGHTLY})
    check(other.get("/api/v1/graphs/digest/triggers"), 404, "not_found")
    for trigger in (*found.values(), {"trigger_id": new_id()}, {"trigger_id": "a'b"}):
        path = f"/api/v1/triggers/{trigger['trigger_id']}"
        check(other.get(path), 404, "not_found")
        check(other.get(f"{path}/fires"), 404, "not_found")
        for what in ("enable", "disable", "fire"):
            check(ask(other, trigger, what), 404, "not_found")
    assert publish(owner, {"hook": HOOK, "nightly": NIGHTLY}) == found


def test_reading_takes_one_scope_and_changing_another(client_for: ClientFor) -> None:
    nightly = publish(client_for(), {"nightly": NIGHTLY})["nightly"]
    reader = client_for(scopes=("triggers:read",))
    path = f"/api/v1/triggers/{nightly['trigger_id']}"
    for each in (path, f"{path}/fires", "/api/v1/graphs/digest/triggers"):
        assert reader.get(each).status_code == 200
    for what in ("enable", "disable", "fire"):
        check(ask(reader, nightly, what), 403, "forbidden")
        assert ask(client_for(scopes=("triggers:write",)), nightly, what).is_success
