"""A run's events over WebSocket, from a real server."""

import json
from typing import Any

from dagster import DagsterEventType
from websockets.typing import Subprotocol

from foundation.ids import new_id
from tests.dynamic_jobs.run_rows import RunRows, entry
from tests.live_api.conftest import TokenFor
from tests.live_api.run_streams import received, rows, wait_until_watched, websocket

__all__ = ["rows"]


def test_websocket(api_url: str, token_for: TokenFor, rows: RunRows) -> None:
    with websocket(api_url, rows, token_for()) as connection:
        rows.write(entry(DagsterEventType.RUN_ENQUEUED))
        assert json.loads(connection.recv(timeout=60)) == rows.events[0]
        connection.send("what a client says is ignored")
        rows.run_whole()
        assert received(connection) == (
            rows.events[1 : rows.events.index(rows.events[-1]) + 1],
            1000,
        )


def test_websocket_resumes(api_url: str, token_for: TokenFor, rows: RunRows) -> None:
    rows.run_whole()
    for position, event in enumerate(rows.events, 1):
        with websocket(api_url, rows, token_for(), f"?after={event['id']}") as connection:
            assert received(connection) == (rows.events[position:], 1000)


def test_websocket_with_a_browsers_token(api_url: str, token_for: TokenFor, rows: RunRows) -> None:
    rows.run_whole()
    offered = [Subprotocol("other"), Subprotocol(f"bearer.{token_for()}")]
    with websocket(api_url, rows, subprotocols=offered) as connection:
        assert connection.subprotocol == offered[1]
        assert received(connection) == (rows.events, 1000)


def test_websocket_close_codes(api_url: str, token_for: TokenFor, rows: RunRows) -> None:
    def code(token: str = "", query: str = "", **options: Any) -> int:
        with websocket(api_url, rows, token, query, **options) as connection:
            got, closed = received(connection)
            assert got == []
            return closed

    assert code() == 4401
    assert code("nonsense") == 4401
    assert code(subprotocols=[Subprotocol("bearer.nonsense")]) == 4401
    assert code(token_for(lifetime=-60)) == 4401
    assert code(token_for(scopes=("runs:write",))) == 4403
    assert code(token_for("other")) == 4404
    assert code(token_for(), "?after=x") == 4400
    rows.run_id = type(rows.run_id)(new_id())
    assert code(token_for()) == 4404


def test_a_websocket_that_leaves_is_forgotten(
    api_url: str, token_for: TokenFor, rows: RunRows
) -> None:
    with websocket(api_url, rows, token_for()):
        wait_until_watched(rows)
    wait_until_watched(rows, watched=False)
