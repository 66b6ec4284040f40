"""PostgreSQL stopped under load, Redis stopped for all of it: no accepted trigger is lost."""

import asyncio
import contextlib
import json
import time
from typing import Any

import httpx
import pytest

from tests.faults.installation import installation
from tests.faults.test_killed_workers import publish

GRAPH: dict[str, Any] = {
    "apiVersion": "graphwright/v1",
    "kind": "Graph",
    "metadata": {"name": "small"},
    "nodes": {
        "one": {"type": "data.transform", "with": {"value": 1}},
        "rest": {"type": "work.sleep", "needs": ["one"], "with": {"seconds": 0.2}},
        "two": {"type": "data.transform", "needs": ["rest"], "with": {"value": 2}},
    },
}
TYPES = [
    "run.queued",
    "run.started",
    *["node.started", "node.output", "node.succeeded"] * 3,
    "run.succeeded",
]


class Load:
    """Triggers one run after the other, each with a key, until told to stop."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._client = httpx.AsyncClient(
            base_url=f"{url}/api/v1", headers=headers, trust_env=False, timeout=30
        )
        self.accepted: dict[str, str] = {}
        self.refused = 0
        self.stopping = False

    async def run(self, name: str) -> None:
        """A key whose trigger failed is sent again until it is accepted, as a client would."""
        number = 0
        while not self.stopping:
            key = f"{name}-{number}"
            number += 1
            while True:
                with contextlib.suppress(httpx.TransportError):
                    answer = await self._client.post(
                        "/graphs/small/runs", json={}, headers={"Idempotency-Key": key}
                    )
                    if answer.status_code == 202:
                        self.accepted[key] = answer.json()["run_id"]
                        break
                    assert answer.status_code in (500, 503), answer.text
                self.refused += 1
                await asyncio.sleep(0.1)

    async def watch(self, run_id: str, types: list[str]) -> None:
        """Follow a run's events to its end, as an EventSource does: it reconnects and resumes."""
        last: str | None = None
        while not types or types[-1] != "run.succeeded":
            headers = {"Accept": "text/event-stream"}
            if last is not None:
                headers["Last-Event-ID"] = last
            try:
                async with self._client.stream(
                    "GET", f"/runs/{run_id}/events", headers=headers
                ) as answer:
                    if answer.status_code == 204:
                        return
                    async for line in answer.aiter_lines():
                        if line.startswith("id: "):
                            last = line.removeprefix("id: ")
                        elif line.startswith("data: "):
                            event = json.loads(line.removeprefix("data: "))
                            if event.get("id"):
                                types.append(event["type"])
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        await self._client.aclose()


async def _under_load(
    url: str, headers: dict[str, str], before: float, after: float, fault: Any
) -> tuple[Load, list[list[str]]]:
    """Trigger and watch runs while the fault happens; what the watchers of some runs saw."""
    load = Load(url, headers)
    clients = [asyncio.create_task(load.run(f"client{i}")) for i in range(4)]
    watched: list[list[str]] = []
    watching: list[asyncio.Task[None]] = []

    async def watch_some(seconds: float) -> None:
        seen: set[str] = set()
        end = time.monotonic() + seconds
        while time.monotonic() < end or not watched:
            for key, run_id in list(load.accepted.items())[-1:]:
                if key not in seen:
                    seen.add(key)
                    watched.append([])
                    watching.append(asyncio.create_task(load.watch(run_id, watched[-1])))
            await asyncio.sleep(0.3)

    await watch_some(before)
    await asyncio.to_thread(fault)
    await watch_some(after)
    load.stopping = True
    await asyncio.gather(*clients)
    _, stuck = await asyncio.wait(watching, timeout=60)
    for task in stuck:
        task.cancel()
    await load.close()
    assert not stuck, [seen for seen, task in zip(watched, watching, strict=True) if task in stuck]
    return load, watched


def _postgres_away(seconds: float, load_seconds: float) -> str:
    with installation(lease_seconds=3, worker_processes=1) as made:
        url = made.api()
        publish(url, made.headers(), GRAPH)
        made.start("worker")

        def stop_for_a_while() -> None:
            made.postgres.stop()
            time.sleep(seconds)
            made.postgres.start()

        load, watched = asyncio.run(
            _under_load(url, made.headers(), load_seconds, load_seconds, stop_for_a_while)
        )
        runs = len(load.accepted)
        made.until_ended(runs, 60)
        assert made.outcomes() == {("succeeded", None): runs}
        assert len(set(load.accepted.values())) == runs
        assert load.refused, "the database was away, and nobody noticed"
        assert all(sorted(seen) == sorted(TYPES) for seen in watched), watched
        return (
            f"PostgreSQL stopped for {seconds:g} s: {runs} triggers accepted, {load.refused} "
            f"answers asked to try again, {len(watched)} streams saw each event once"
        )


def test_postgres_stopped_for_a_moment() -> None:
    _postgres_away(seconds=1, load_seconds=2)


@pytest.mark.soak
@pytest.mark.timeout(180)
def test_postgres_stopped_for_ten_seconds() -> None:
    print(_postgres_away(seconds=10, load_seconds=10))


def _redis_away(load_seconds: float) -> str:
    with installation(lease_seconds=3, worker_processes=1) as made:
        url = made.api()
        publish(url, made.headers(), GRAPH)
        made.start("worker")
        load, watched = asyncio.run(
            _under_load(url, made.headers(), 0.5, load_seconds, made.valkey.stop)
        )
        runs = len(load.accepted)
        made.until_ended(runs, 60)
        assert made.outcomes() == {("succeeded", None): runs}
        assert all(sorted(seen) == sorted(TYPES) for seen in watched), watched
        return f"Redis stopped: {runs} runs, {len(watched)} streams saw each event once"


def test_redis_stopped() -> None:
    _redis_away(load_seconds=2)


@pytest.mark.soak
@pytest.mark.timeout(120)
def test_redis_stopped_for_long() -> None:
    print(_redis_away(load_seconds=20))
