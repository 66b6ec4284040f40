"""Several streams on one WebSocket, from a real server."""

import json
from collections.abc import Generator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from foundation.database import connect as connect_database
from foundation.ids import TenantId, new_id
from foundation.settings import Limits, Settings
from tests.clock import Clock
from tests.dynamic_jobs.run_rows import RunRows, ran
from tests.live_api.conftest import TokenFor, serving


@pytest.fixture
def rows(settings: Settings) -> RunRows:
    return RunRows(settings.database_url, settings.redis_url)


class Socket:
    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def say(self, op: str, **more: Any) -> None:
        self.send(json.dumps({"op": op, **more}))

    def send(self, text: str | bytes) -> None:
        self._connection.send(text)

    def hear(self) -> dict[str, Any]:
        return json.loads(self._connection.recv(timeout=60))

    def closed(self) -> tuple[int, str]:
        with pytest.raises(ConnectionClosed) as closed:
            self.hear()
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code, closed.value.rcvd.reason


@contextmanager
def opened(api_url: str, token: str) -> Generator[Socket]:
    headers = {"Authorization": f"Bearer {token}"}
    address = f"ws{api_url.removeprefix('http')}/api/v1/ws"
    with connect(address, additional_headers=headers, open_timeout=60) as connection:
        yield Socket(connection)


@pytest.fixture
def socket(api_url: str, token_for: TokenFor) -> Generator[Socket]:
    with opened(api_url, token_for()) as socket:
        yield socket


def test_a_run_from_its_first_event_to_its_last(socket: Socket, rows: RunRows) -> None:
    rows.write(*ran("a"))
    socket.say("subscribe", ref="mine", run_id=rows.run_id)
    assert socket.hear() == {"op": "subscribed", "ref": "mine", "id": "0"}
    for event in rows.events:
        told = {"op": "event", "ref": "mine", "id": event["id"], "event": event}
        assert socket.hear() == told
    rows.succeed()
    assert socket.hear()["event"] == rows.events[-1]
    assert socket.hear() == {"op": "ended", "ref": "mine"}
    socket.say("subscribe", ref="mine", run_id=rows.run_id, after=rows.events[-2]["id"])
    assert [socket.hear()["op"] for _ in range(3)] == ["subscribed", "event", "ended"]


def test_several_at_once(socket: Socket, rows: RunRows, settings: Settings) -> None:
    other = RunRows(settings.database_url, settings.redis_url, graph="other")
    socket.say("subscribe", ref="all", all=True)
    begun = socket.hear()
    socket.say("subscribe", ref="graph", graph="other", types=["node.succeeded"])
    assert [begun["op"], socket.hear()["op"]] == ["subscribed", "subscribed"]
    socket.say("subscribe", ref="run", run_id=rows.run_id)
    assert socket.hear()["op"] == "subscribed"
    rows.write(*ran("a"))
    other.write(*ran("a"))
    got: dict[str, list[Any]] = {"all": [], "graph": [], "run": []}
    for _ in range(4 + 1 + 8):
        told = socket.hear()
        got[told["ref"]].append(told)
    assert [told["event"] for told in got["run"]] == rows.events
    assert [told["event"] for told in got["graph"]] == other.events[-1:]
    assert [told["event"] for told in got["all"]] == [*rows.events, *other.events]
    socket.say("subscribe", ref="again", all=True, after=begun["id"])
    assert socket.hear()["op"] == "subscribed"
    again = [socket.hear() for _ in range(8)]
    assert [told["event"] for told in again] == [told["event"] for told in got["all"]]


def test_unsubscribing(socket: Socket, rows: RunRows) -> None:
    socket.say("subscribe", ref="mine", run_id=rows.run_id)
    assert socket.hear()["op"] == "subscribed"
    socket.say("unsubscribe", ref="mine")
    assert socket.hear() == {"op": "unsubscribed", "ref": "mine"}
    rows.write(*ran("a"))
    socket.say("ping")
    assert socket.hear() == {"op": "pong"}
    socket.say("unsubscribe", ref="mine")
    assert socket.hear()["code"] == "bad_subscription"


def test_what_cannot_be_followed_leaves_the_socket_open(
    socket: Socket, rows: RunRows, settings: Settings
) -> None:
    foreign = RunRows(settings.database_url, tenant=TenantId("other"), graph="foreign")
    for asked in (
        {"run_id": new_id()},
        {"run_id": "x"},
        {"run_id": foreign.run_id},
        {"graph": "foreign"},
        {"graph": foreign.graph_id},
    ):
        socket.say("subscribe", ref="r", **asked)
        told = socket.hear()
        assert (told["op"], told["ref"], told["code"]) == ("error", "r", "not_found")
    for asked in ({"run_id": rows.run_id, "after": "x"}, {"all": True, "after": "1"}):
        socket.say("subscribe", ref="r", **asked)
        assert socket.hear()["code"] == "bad_event_id"
    socket.say("subscribe", ref="r", run_id=rows.run_id)
    assert socket.hear()["op"] == "subscribed"
    socket.say("subscribe", ref="r", run_id=rows.run_id)
    assert socket.hear()["code"] == "bad_subscription"


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "7", '{"op": "dance"}', "{}", '{"op": "subscribe"}',
        '{"op": "subscribe", "ref": "r"}', '{"op": "subscribe", "ref": "", "all": true}',
        '{"op": "subscribe", "ref": "r", "all": false}',
        '{"op": "subscribe", "ref": "r", "all": true, "graph": "g"}',
        '{"op": "subscribe", "ref": "r", "run_id": "x", "types": ["run.failed"]}',
        '{"op": "subscribe", "ref": "r", "all": true, "types": ["run.exploded"]}',
        '{"op": "subscribe", "ref": "r", "all": true, "more": 1}',
        '{"op": "authenticate"}', '{"op": "ping", "ref": "' + "x" * 70_000 + '"}',
        "[" * 5_000, '{"ref": "\\ud800"}',
    ],
)  # fmt: skip
def test_what_is_no_message(socket: Socket, text: str) -> None:
    socket.send(text)
    told = socket.hear()
    assert (told["op"], told["code"]) == ("error", "bad_message")
    socket.say("ping")
    assert socket.hear() == {"op": "pong"}


def test_a_message_far_too_long_closes_it(socket: Socket) -> None:
    """It is not read to its end, however long it may be."""
    socket.say("subscribe", ref="all", all=True)
    assert socket.hear()["op"] == "subscribed"
    socket.send("x" * 200_000)
    assert socket.closed()[0] == 1009


def test_at_most_a_thousand_subscriptions(socket: Socket, rows: RunRows) -> None:
    for number in range(1_001):
        socket.say("subscribe", ref=str(number), all=True)
    ops = [socket.hear() for _ in range(1_001)]
    assert [told["ref"] for told in ops if told["op"] == "error"] == ["1000"]


def test_who_may(api_url: str, token_for: TokenFor) -> None:
    for token in ("nonsense", token_for(lifetime=-60)):
        with opened(api_url, token) as socket:
            assert socket.closed()[0] == 4401
    with opened(api_url, token_for(scopes=("graphs:read",))) as socket:
        assert socket.closed()[0] == 4403


def test_a_token_that_expires_closes_it_unless_there_is_a_new_one(
    api_url: str, token_for: TokenFor, clock: Clock
) -> None:
    token = token_for(lifetime=3_600)
    with opened(api_url, token) as idle, opened(api_url, token) as socket:
        for bad, code in (
            ("nonsense", "unauthenticated"),
            (token_for("other"), "forbidden"),
            (token_for(scopes=("graphs:read",)), "forbidden"),
        ):
            socket.say("authenticate", token=bad)
            assert socket.hear()["code"] == code
        socket.say("authenticate", token=token_for(lifetime=7_200))
        told = socket.hear()
        assert told["op"] == "authenticated"
        idle.say("ping")
        assert idle.hear() == {"op": "pong"}
        clock.forward(3_700)
        assert idle.closed() == (4401, "token_expired")  # all are looked at in one turn
        socket.say("ping")
        assert socket.hear() == {"op": "pong"}
        clock.forward(3_700)
        assert socket.closed() == (4401, "token_expired")


def test_stopping_closes_it(
    settings: Settings, limits: Limits, token_for: TokenFor, rows: RunRows
) -> None:
    with serving(settings, limits) as url:
        with opened(url, token_for()) as idle:
            idle.say("ping")
            assert idle.hear() == {"op": "pong"}
        busy = opened(url, token_for())
        socket = busy.__enter__()
        socket.say("subscribe", ref="all", all=True)
        assert socket.hear()["op"] == "subscribed"
    assert socket.closed() == (1012, "shutting_down")
    busy.__exit__(None, None, None)


WAITING = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE %s
"""


def test_a_database_that_breaks_off_is_told(
    socket: Socket, rows: RunRows, settings: Settings
) -> None:
    """The subscription is over and says so; the same one can be made again."""
    asked = {"ref": "mine", "graph": rows.graph}
    # Who waits is asked on a connection of its own: a transaction sees sessions as it first did.
    with connect_database(settings.database_url) as locking, locking.transaction():
        locking.execute("LOCK TABLE graphwright.graphs")
        socket.say("subscribe", **asked)
        with connect_database(settings.database_url) as connection:
            while not (found := connection.execute(WAITING, ("%graphwright.graphs%",)).fetchall()):
                pass
            for row in found:
                connection.execute("SELECT pg_terminate_backend(%s)", (row["pid"],))
        told = socket.hear()
        assert (told["op"], told["ref"], told["code"]) == ("error", "mine", "unavailable")
    socket.say("subscribe", **asked)
    assert socket.hear()["op"] == "subscribed"


@pytest.mark.parametrize("broken", ["parse", "types_of"])
def test_a_fault_of_ours_closes_it(
    socket: Socket, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(f"live_api.streams.socket.{broken}", fail)
    socket.say("subscribe", ref="all", all=True)
    assert socket.closed() == (1011, "")


def test_bytes_are_no_message(socket: Socket) -> None:
    socket.send(b'{"op": "ping"}')
    assert socket.hear()["code"] == "bad_message"
    socket.say("ping")
    assert socket.hear() == {"op": "pong"}


def test_a_flood_of_messages_closes_it(socket: Socket) -> None:
    def flood() -> None:
        with suppress(ConnectionClosed):
            for _ in range(10_000):
                socket.say("ping")

    flooding = Thread(target=flood)
    flooding.start()
    pongs = 0
    with pytest.raises(ConnectionClosed) as closed:
        while socket.hear() == {"op": "pong"}:
            pongs += 1
    flooding.join()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4429, "rate_limited")
    assert pongs >= 2_000


@pytest.mark.usefixtures("clock")
def test_subscriptions_count_as_requests(
    settings: Settings, limits: Limits, token_for: TokenFor
) -> None:
    few = settings.model_copy(update={"requests_per_minute": 3})
    with serving(few, limits) as url, opened(url, token_for()) as socket:
        for ref in "ab":
            socket.say("subscribe", ref=ref, all=True)
            assert socket.hear()["op"] == "subscribed"
        socket.say("subscribe", ref="c", all=True)
        told = socket.hear()
        assert (told["op"], told["ref"], told["code"]) == ("error", "c", "rate_limited")
        socket.say("authenticate", token=token_for())
        assert socket.hear()["code"] == "rate_limited"
