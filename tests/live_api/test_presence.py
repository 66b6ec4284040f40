"""Who watches a run, at whichever server."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from foundation.ids import RunId, new_id
from foundation.redis import async_redis
from foundation.settings import Limits, Settings
from live_api.streams.clients import Transport
from live_api.streams.presence import Presence
from tests.dynamic_jobs.run_rows import RunRows
from tests.live_api.conftest import ClientFor, TokenFor, serving
from tests.live_api.run_streams import SSE, received, url_of, wait_until_watched, websocket


@pytest.fixture
def rows(settings: Settings) -> RunRows:
    return RunRows(settings.database_url, settings.redis_url)


def until(ask: Callable[[], dict[str, Any]], *transports: str) -> dict[str, Any]:
    """Ask until so many watch by these."""
    deadline = time.monotonic() + 60
    while True:
        answer = ask()
        if Counter(each["transport"] for each in answer["items"]) == Counter(transports):
            return answer
        assert time.monotonic() < deadline, answer


def test_watchers_of_two_servers(
    settings: Settings, limits: Limits, token_for: TokenFor, rows: RunRows
) -> None:
    headers = {"Authorization": f"Bearer {token_for()}"}
    path = f"/api/v1/runs/{rows.run_id}/watchers"
    with (
        serving(settings, limits) as one,
        serving(settings, limits) as two,
        httpx.Client(headers=headers, timeout=30) as client,
    ):

        def ask(url: str) -> dict[str, Any]:
            return client.get(url + path).json()

        assert ask(one) == {"items": [], "complete": True}
        with ExitStack() as watching:
            watching.enter_context(
                httpx.stream("GET", one + url_of(rows), headers=headers | SSE, timeout=30)
            )
            watching.enter_context(websocket(two, rows, token_for()))
            for url in (one, two):
                answer = until(lambda url=url: ask(url), "sse", "websocket")
                assert {each["subject"] for each in answer["items"]} == {"ann"}
                assert answer["complete"]
            wait_until_watched(rows)
        for url in (one, two):
            until(lambda url=url: ask(url))


def test_other_tenants(client_for: ClientFor, rows: RunRows) -> None:
    path = f"/api/v1/runs/{rows.run_id}/watchers"
    assert client_for("other").get(path).status_code == 404
    assert client_for(scopes=("graphs:read",)).get(path).status_code == 403


def test_who_may_not_watch_is_never_a_watcher(
    api_url: str, token_for: TokenFor, rows: RunRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even until the run was looked up."""
    entered: list[str] = []
    watching = Presence.watching

    def noted(presence: Presence, run_id: RunId, subject: str, transport: Transport) -> Any:
        entered.append(transport)
        return watching(presence, run_id, subject, transport)

    monkeypatch.setattr(Presence, "watching", noted)
    stranger = token_for("other")
    with websocket(api_url, rows, stranger) as connection:
        assert received(connection) == ([], 4404)
    headers = {"Authorization": f"Bearer {stranger}"} | SSE
    assert httpx.get(api_url + url_of(rows), headers=headers, timeout=30).status_code == 404
    assert entered == []
    rows.run_whole()
    with websocket(api_url, rows, token_for()) as connection:
        assert received(connection) == (rows.events, 1000)
    assert entered == ["websocket"]


@pytest.mark.anyio
async def test_without_redis_only_ones_own_are_known(tmp_path: Any) -> None:
    run_id = RunId(new_id())
    async with async_redis(f"unix://{tmp_path}/none.sock") as redis, Presence(redis) as presence:
        with presence.watching(run_id, "ann", "sse"):
            items, complete = await presence.watchers(run_id)
            assert ([each["subject"] for each in items], complete) == (["ann"], False)
        assert await presence.watchers(run_id) == ([], False)
