"""The API is restarted under load, gracefully and by kill -9: what it said it did stays done."""

import asyncio
import os
import signal
from collections import Counter
from dataclasses import dataclass, field

import httpx
import pytest

from foundation.database import connect
from tests import services
from tests.faults.installation import Installation, installation
from tests.faults.test_killed_workers import publish
from tests.faults.test_servers_away import GRAPH
from tests.forking import Forked

_CLIENTS = 16


@dataclass
class Said:
    """What clients were told."""

    runs: set[str] = field(default_factory=set[str])
    secrets: set[str] = field(default_factory=set[str])
    versions: set[int] = field(default_factory=set[int])
    statuses: Counter[int] = field(default_factory=Counter[int])
    cut: int = 0
    """Requests whose answer never came."""
    news: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    """Released with each answer."""

    @property
    def answered(self) -> int:
        return self.statuses.total()


async def _ask(url: str, headers: dict[str, str], said: Said, done: asyncio.Event) -> None:
    """Trigger runs, set secrets and publish versions until ``done``."""
    number = 0
    async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=30) as client:
        while not done.is_set():
            number += 1
            name = f"of_{id(client)}_{number}"
            labelled = {**GRAPH, "metadata": {"name": "changing", "labels": {"at": name}}}
            try:
                match number % 10:
                    case 0:
                        answer = await client.put(f"{url}/secrets/{name}", json={"value": name})
                        if answer.is_success:
                            said.secrets.add(name)
                    case 5:
                        answer = await client.post(f"{url}/graphs", json=labelled)
                        if answer.is_success:
                            said.versions.add(answer.json()["version"])
                    case _:
                        answer = await client.post(f"{url}/graphs/small/runs", json={})
                        if answer.is_success:
                            said.runs.add(answer.json()["run_id"])
            except httpx.ConnectError:
                await asyncio.sleep(0.05)  # nobody listens for a moment
            except httpx.TransportError:
                said.cut += 1
            else:
                said.statuses[answer.status_code] += 1
                said.news.release()


async def _restart(made: Installation, restarts: int, requests: int) -> Said:
    port = services.free_port()
    said, done = Said(), asyncio.Event()

    def start() -> Forked:
        process = made.start("api", api_port=port)
        made.until_ready(process, port)
        return process

    process = await asyncio.to_thread(start)
    url = f"http://127.0.0.1:{port}/api/v1"
    headers = made.headers()
    await asyncio.to_thread(publish, f"http://127.0.0.1:{port}", headers, GRAPH)
    clients = [asyncio.create_task(_ask(url, headers, said, done)) for _ in range(_CLIENTS)]
    for turn in range(restarts):
        for _ in range(requests):
            await said.news.acquire()
        stop = signal.SIGKILL if turn % 2 else signal.SIGTERM
        os.killpg(process.pid, stop)
        assert await asyncio.to_thread(process.wait, 60) == -stop
        process = await asyncio.to_thread(start)
    done.set()
    await asyncio.gather(*clients)
    return said


def restarted(restarts: int, requests: int) -> str:
    with installation() as made:
        said = asyncio.run(_restart(made, restarts, requests))
        with connect(made.settings.database_url) as connection:
            runs = {
                str(row["run_id"])
                for row in connection.execute(
                    "SELECT r.run_id FROM graphwright.runs r"
                    " JOIN graphwright.run_queue q USING (run_id)"
                    " JOIN runs d ON d.run_id = r.run_id::text"
                )
            }
            secrets = {
                row["name"] for row in connection.execute("SELECT name FROM graphwright.secrets")
            }
            versions = {
                row["version"]
                for row in connection.execute(
                    "SELECT v.version FROM graphwright.graph_versions v"
                    " JOIN graphwright.graphs g USING (tenant, graph_id) WHERE g.name = 'changing'"
                )
            }
    assert set(said.statuses) <= {200, 201, 202, 503}, said.statuses
    assert said.runs
    assert said.secrets
    assert said.versions
    assert said.runs <= runs
    assert said.secrets <= secrets
    assert said.versions <= versions
    # What was done and not told is at most what was under way when a process was killed.
    assert len(runs - said.runs) <= said.cut
    return (
        f"{restarts} restarts, half of them kill -9, under {_CLIENTS} clients: {said.answered}"
        f" requests answered, {said.cut} cut off; all {len(said.runs)} runs,"
        f" {len(said.secrets)} secrets and {len(said.versions)} versions are there"
    )


def test_what_was_answered_outlives_a_few_restarts() -> None:
    restarted(restarts=2, requests=150)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_what_was_answered_outlives_twenty_restarts() -> None:
    print(restarted(restarts=20, requests=1_000))
