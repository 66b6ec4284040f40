"""Webhooks come in while what makes runs of them is killed: each starts one run."""

import asyncio
import hashlib
import hmac
import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import pytest

from foundation.database import connect
from tests.faults.installation import Installation, installation
from tests.faults.test_killed_workers import publish
from tests.forking import Forked
from tests.services import free_port

SECRET = "it is a secret to everybody"
GRAPH: dict[str, Any] = {
    "apiVersion": "graphwright/v1",
    "kind": "Graph",
    "metadata": {"name": "called"},
    "params": {"type": "object", "properties": {"number": {"type": "integer"}}},
    "nodes": {
        "a": {"type": "data.transform", "with": {"value": "${{ params.number }}"}},
        "b": {
            "type": "data.transform",
            "needs": ["a"],
            "with": {"value": "${{ nodes.a.output }}"},
        },
    },
    "triggers": {
        "call": {
            "type": "webhook",
            "scheme": "github",
            "secret": "HOOK",
            "params": {"number": "${{ trigger.body.number }}"},
        }
    },
}

START = "SELECT run_id::text, params ->> 'number' AS number FROM graphwright.runs"
VERDICTS = """
SELECT verdict, count(*) AS n, count(DISTINCT run_id) AS runs
FROM graphwright.deliveries GROUP BY verdict
"""


@dataclass
class Killed:
    """Processes that are killed with -9 in turn, and started again."""

    start: dict[str, Callable[[], Forked]]
    processes: dict[str, Forked] = field(default_factory=dict[str, Forked])
    times: Counter[str] = field(default_factory=Counter[str])

    def begin(self) -> None:
        for name, start in self.start.items():
            self.processes[name] = start()

    def one(self, name: str) -> None:
        process = self.processes[name]
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()
        self.processes[name] = self.start[name]()
        self.times[name] += 1

    @contextmanager
    def all_the_time(self, pause: float) -> Generator[None]:
        """Kill one after the other until the block ends."""
        stop = threading.Event()

        def work() -> None:
            names = list(self.start)
            while not stop.wait(pause):
                self.one(names[self.times.total() % len(names)])

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def prepare(made: Installation) -> str:
    """Publish the graph, set its secret, and return the path of its webhook."""
    api, headers = made.api(), made.headers()
    publish(api, headers, GRAPH)
    with httpx.Client(
        base_url=f"{api}/api/v1", headers=headers, trust_env=False, timeout=60
    ) as client:
        assert client.put("/secrets/HOOK", json={"value": SECRET}).is_success
        (trigger,) = client.get("/graphs/called/triggers").json()["items"]
    return httpx.URL(trigger["url"]).path


async def send(urls: list[str], calls: list[int], rate: float) -> int:
    """Make each call, again and again until it is taken, as senders do; how often that took more
    than one."""
    again = 0
    begin = time.monotonic()
    # Slow receivers make calls late, not a crowd of them that time out waiting for each other.
    at_once = asyncio.Semaphore(100)
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:

        async def one(place: int, number: int) -> None:
            nonlocal again
            await asyncio.sleep(max(0.0, begin + place / rate - time.monotonic()))
            body = json.dumps({"number": number}).encode()
            signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
            headers = {
                "Content-Type": "application/json",
                "X-GitHub-Event": "push",
                "X-GitHub-Delivery": f"call-{number}",
                "X-Hub-Signature-256": f"sha256={signature}",
            }
            for attempt in range(200):
                with suppress(httpx.TransportError):
                    url = urls[(place + attempt) % len(urls)]
                    async with at_once:
                        answer = await client.post(url, content=body, headers=headers)
                    if answer.is_success:
                        return
                    assert answer.status_code == 503, answer.text
                again += 1
                await asyncio.sleep(0.1)
            raise AssertionError(f"call {number} was never taken")

        await asyncio.gather(*(one(place, number) for place, number in enumerate(calls)))
    return again


def check(made: Installation, count: int) -> int:
    """Each call has one run that has succeeded, which one tick names; how many ticks there are."""
    assert made.outcomes() == {("succeeded", None): count}
    with connect(made.settings.database_url) as connection:
        runs = {row["run_id"]: row["number"] for row in connection.execute(START)}
        verdicts = connection.execute(VERDICTS).fetchall()
        waiting = connection.execute("SELECT count(*) AS n FROM graphwright.delivery_queue")
        assert waiting.fetchone() == {"n": 0}
        ticks = connection.execute(
            "SELECT tick_body FROM job_ticks WHERE status = 'SUCCESS'"
        ).fetchall()
    assert sorted(runs.values(), key=int) == [str(number) for number in range(count)]
    assert verdicts == [{"verdict": "started", "n": count, "runs": count}]
    ticked = Counter(run for tick in ticks for run in orjson.loads(tick["tick_body"])["run_ids"])
    assert ticked == Counter(dict.fromkeys(runs, 1)), "ticks name each run once"
    return len(ticks)


def calling(count: int, rate: float, pause: float, patience: float, *, daemon: bool) -> str:
    with installation(lease_seconds=2, worker_processes=1, code_port=free_port()) as made:
        path = prepare(made)
        receivers = [made.hooks()[0], made.hooks()[0]]
        start = {
            "dispatcher": lambda: made.start("dispatcher"),
            "worker": lambda: made.start("worker"),
            **({"daemon": made.daemon} if daemon else {}),
        }
        if daemon:
            made.start("code")
        killed = Killed(start)
        killed.begin()
        made.start("worker")
        made.until_working(2)
        calls = list(range(count))
        dice = random.Random(5)
        calls += dice.sample(calls, count // 10)  # some are repeated
        dice.shuffle(calls)
        began = time.monotonic()
        with killed.all_the_time(pause):
            again = asyncio.run(send([f"{url}{path}" for url in receivers], calls, rate))
        sent = time.monotonic() - began
        made.until_ended(count, patience)
        ticks = check(made, count)
        assert killed.times
        return (
            f"{len(calls)} webhooks, {count // 10} of them repeated, in {sent:.0f} s ({again} sent "
            f"again); killed with -9 meanwhile: {dict(killed.times)}; {count} runs, each succeeded "
            f"once, in {ticks} ticks, {time.monotonic() - began - sent:.1f} s after the last call"
        )


def test_a_few_webhooks_while_the_dispatcher_is_killed() -> None:
    calling(count=240, rate=40, pause=2, patience=60, daemon=False)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_five_thousand_webhooks_while_everything_is_killed() -> None:
    print(calling(count=5_000, rate=80, pause=5, patience=200, daemon=True))
