"""Streams without gaps: every client sees every event once and in order, whatever breaks.

Clients break off at random and go on at another server; one of two API processes is killed with -9
and started again; Redis is restarted; meanwhile events are written through the event writer.
"""

import asyncio
import random
import signal
import threading
import time
from collections.abc import Sequence
from typing import get_args

import httpx
import pytest
from dagster import DagsterEvent, DagsterEventType, EventLogEntry

from dynamic_jobs.storage import GraphwrightStorage, Lease
from foundation.database import connect
from foundation.ids import RunId, TenantId
from tests import services
from tests.faults.installation import Installation, installation
from tests.faults.stream_clients import Kind, StreamClient
from tests.faults.test_killed_workers import publish, trigger
from tests.faults.test_servers_away import GRAPH

HOLD = "UPDATE graphwright.runs SET epoch = 1, status = 'running' WHERE run_id = ANY(%s::uuid[])"


class Writing(threading.Thread):
    """Writes log lines on all runs in turn, and ends the runs."""

    def __init__(self, made: Installation, run_ids: Sequence[str], rounds: int) -> None:
        super().__init__(name="writing", daemon=True)
        self._storage = GraphwrightStorage(made.settings.database_url, made.settings.redis_url)
        self._run_ids = run_ids
        self._rounds = rounds
        self.troubled = threading.Event()
        """Set once everything has been broken and mended: only then it may come to its end."""
        self.progress = threading.Condition()
        self.done = 0
        with connect(made.settings.database_url) as connection:
            connection.execute(HOLD, (list(run_ids),))
        for run_id in run_ids:
            self._storage.writer.hold(Lease(TenantId("acme"), RunId(run_id), 1))

    def run(self) -> None:
        # Past its rounds it leaves the machine to what is being mended.
        while self.done < self._rounds or not self.troubled.wait(0.02):
            for run_id in self._run_ids:
                self._say(run_id, None)
            self._storage.writer.flush()
            with self.progress:
                self.done += 1
                self.progress.notify_all()
        for run_id in self._run_ids:
            self._say(run_id, DagsterEventType.RUN_SUCCESS)
        self._storage.writer.flush()

    def until(self, share: float) -> None:
        """Wait until this part of the rounds is written."""
        with self.progress:
            assert self.progress.wait_for(lambda: self.done >= share * self._rounds, 300)

    def _say(self, run_id: str, kind: DagsterEventType | None) -> None:
        event = kind and DagsterEvent(event_type_value=kind.value, job_name="job")
        step = None if kind else "one"
        line = EventLogEntry(None, 20, "a line", run_id, time.time(), step, "job", event)
        self._storage.event_log_storage.store_event(line)


def _break_things(made: Installation, writing: Writing, port: int) -> None:
    """Kill an API and restart it, and meanwhile Redis; all is mended at the end."""
    writing.until(0.1)
    made.processes[0].send_signal(signal.SIGKILL)
    made.processes[0].wait()
    print("one of two APIs was killed, and is started again", flush=True)
    api = made.start("api", api_port=port)
    writing.until(0.3)
    made.valkey.stop()
    print("Redis is stopped", flush=True)
    writing.until(0.5)
    made.valkey.start()
    made.until_ready(api, port)
    print("Redis and the API are back", flush=True)
    writing.troubled.set()


async def _follow(
    clients: Sequence[StreamClient],
    urls: Sequence[str],
    headers: dict[str, str],
    begin: threading.Event,
    writing: Writing,
) -> None:
    ready = [asyncio.Event() for _ in clients]
    telling = asyncio.create_task(_tell(clients, writing))
    anew = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with (
        httpx.AsyncClient(headers=headers, trust_env=False, timeout=30, limits=anew) as http,
        asyncio.TaskGroup() as following,
    ):
        for client, connected in zip(clients, ready, strict=True):
            following.create_task(client.follow(http, urls, connected))
        for connected in ready:
            await connected.wait()
        begin.set()
    telling.cancel()


async def _tell(clients: Sequence[StreamClient], writing: Writing) -> None:
    """How far everybody is, every five seconds, to whoever waits."""
    began = time.monotonic()
    while True:
        print(
            f"{time.monotonic() - began:4.0f} s: {writing.done:,} rounds are written; clients have"
            f" {sum(len(client.got) for client in clients):,} events over"
            f" {sum(client.connections for client in clients):,} connections,"
            f" and {sum(client.ended == len(client.runs) for client in clients)} have all",
            flush=True,
        )
        await asyncio.sleep(5)


def _events_of(url: str, headers: dict[str, str], run_id: str) -> list[str]:
    """The ids of all events of a run, page by page."""
    found: list[str] = []
    after = "0"
    with httpx.Client(headers=headers, trust_env=False, timeout=30) as client:
        while True:
            answer = client.get(
                f"{url}/api/v1/runs/{run_id}/events", params={"after": after, "limit": 1_000}
            )
            assert answer.status_code == 200, answer.text
            found += [event["id"] for event in answer.json()["items"]]
            if answer.json()["ended"]:
                return found
            after = found[-1]


def _without_gaps(runs: int, rounds: int, kinds: Sequence[Kind], events_a_connection: int) -> str:
    with installation() as made:
        ports = [services.free_port() for _ in range(2)]
        apis = [made.start("api", api_port=port) for port in ports]
        urls = [made.until_ready(api, port) for api, port in zip(apis, ports, strict=True)]
        headers = made.headers()
        publish(urls[0], headers, GRAPH)
        run_ids = trigger(urls[0], headers, "small", runs)
        writing = Writing(made, run_ids, rounds)
        clients = [
            StreamClient(
                kind,
                run_ids if kind.startswith("all") else [run_ids[number % runs]],
                random.Random(number),
                # Events come to who follows all from many runs, and so much faster.
                events_a_connection * (4 if kind.startswith("all") else 1),
            )
            for number, kind in enumerate(kinds)
        ]

        def trouble() -> None:
            begin.wait()
            writing.start()
            _break_things(made, writing, ports[0])

        begin = threading.Event()
        troubles = threading.Thread(target=trouble, name="troubles", daemon=True)
        troubles.start()
        asyncio.run(_follow(clients, urls, headers, begin, writing))
        troubles.join(60)
        expected = {run_id: _events_of(urls[1], headers, run_id) for run_id in run_ids}
        for client in clients:
            for run_id in client.runs:
                seen = [event for run, event in client.got if run == run_id]
                # Who follows all begins at a moment, when each run had been queued.
                wanted = expected[run_id][1:] if client.kind.startswith("all") else expected[run_id]
                assert seen == wanted, f"{client.kind}: {len(seen)} of {len(wanted)}"
        events, connections = sum(map(len, expected.values())), sum(c.connections for c in clients)
        return (
            f"{len(clients)} clients over {connections:,} connections saw each of {events:,} "
            "events once and in order; one of two APIs was killed, Redis restarted"
        )


def test_streams_without_gaps() -> None:
    kinds: list[Kind] = [*get_args(Kind)] * 3
    _without_gaps(runs=3, rounds=150, kinds=kinds, events_a_connection=40)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_streams_without_gaps_for_two_hundred_clients() -> None:
    of_one: list[Kind] = ["sse", "websocket"]
    of_all: list[Kind] = ["all over sse", "all over websocket"]
    kinds = of_one * 92 + of_all * 8
    print(_without_gaps(runs=50, rounds=2_000, kinds=kinds, events_a_connection=400))
