"""Ours: the whole local stack, as ``graphwright up`` starts it, over REST and SSE."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, LiteralString

from bench.engines.web import repeated, run
from bench.support.graphs import Work, chain
from bench.support.http import Http
from bench.support.processes import Child, Processes
from foundation.database import connect
from graphwright.stackfile import read_stack

_CONNECTIONS: Final = 32
_POLL_SECONDS: Final = 0.01
_PATIENCE_SECONDS: Final = 60.0
_ENDS: Final = (b"event: run.succeeded", b"event: run.failed", b"event: run.cancelled")

COUNTS: Final[LiteralString] = """
SELECT count(*) FILTER (WHERE ended_at IS NOT NULL) AS ended,
       count(*) FILTER (WHERE status = 'succeeded') AS succeeded
FROM graphwright.runs WHERE tenant = 'default' AND graph_id = %s
    AND created_at >= to_timestamp(%s)
"""
LOGGED: Final[LiteralString] = """
SELECT count(*) AS logged FROM graphwright.runs r JOIN event_logs e ON e.run_id = r.run_id::text
WHERE r.tenant = 'default' AND r.graph_id = %s AND r.created_at >= to_timestamp(%s)
    AND e.dagster_event_type = 'STEP_SUCCESS'
"""
ACTIVE: Final[LiteralString] = """
SELECT count(*) AS active FROM graphwright.runs
WHERE tenant = 'default' AND started_at IS NOT NULL AND ended_at IS NULL
"""


class Graphwright:
    """A running stack. One client process, this one; its loop is uvloop's."""

    name = program = "graphwright"
    slow = False

    def __init__(self, child: Child, state: Path, values: Mapping[str, Any]) -> None:
        self._child = child
        self._state = state
        self.database: str = values["database_url"]
        self.base: str = values["api_url"]
        self.headers = {"Authorization": f"Bearer {values['token']}"}
        self.how = (
            f"{version('graphwright')}, as `graphwright up` starts it; runs started over REST, "
            "their ends seen over SSE"
        )
        self._posted: dict[str, str] = {}

    def stopped(self) -> AbstractContextManager[None]:
        # Its guard must be able to end the others if we are killed meanwhile.
        return self._child.stopped(spared=self._pids().get("guard", 0))

    def one_by_one(self, work: Work, count: int, seconds: float) -> list[float]:
        return self.runs_of(chain(work), count, seconds)

    def at_once(self, work: Work, count: int) -> float:
        return self.many_of(chain(work), count)

    def runs_of(self, document: Mapping[str, Any], count: int, seconds: float) -> list[float]:
        """As ``one_by_one``, for any graph; seconds from the trigger to the end, seen over SSE."""
        name = self.post(document)

        async def work() -> list[float]:
            async with self.http() as trigger, self.http() as events:
                return await repeated(lambda: run_to_end(trigger, events, name), count, seconds)

        return run(work())

    def recorded(self, document: Mapping[str, Any], count: int) -> tuple[list[float], list[float]]:
        """Runs one after the other: seconds from the trigger until a client sees the committed end,
        and from ``started_at`` to ``ended_at`` of their records, which is before that commit.
        """
        name = self.post(document)

        async def work() -> tuple[list[float], list[float]]:
            found: tuple[list[float], list[float]] = ([], [])
            async with self.http() as trigger, self.http() as events:
                for _ in range(count):
                    began = time.perf_counter()
                    run_id = await _start(trigger, name)
                    found[0].append(await _follow(events, run_id) - began)
                    record = await trigger.send(trigger.get(_run(run_id)))
                    found[1].append(_took(record.json()))
            return found

        return run(work())

    def many_of(self, document: Mapping[str, Any], count: int) -> float:
        """Seconds from the first of ``count`` triggers until the end of the last run is committed.

        Not until its ``ended_at``: that is when the event was made, before it was stored. Raises
        RuntimeError when a run does not succeed, or the log does not hold each node's success.
        """
        name = self.post(document)
        began = time.time()
        run(self.trigger(name, count))
        deadline = time.monotonic() + _PATIENCE_SECONDS
        with connect(self.database) as database:
            while True:
                found = database.execute(COUNTS, (self._posted[name], began)).fetchone()
                assert found is not None
                if found["ended"] >= count:
                    break
                if time.monotonic() > deadline:
                    raise RuntimeError(f"only {found['ended']} of {count} runs have ended")
                time.sleep(_POLL_SECONDS)
            took = time.time() - began
            if found["succeeded"] != count:
                raise RuntimeError(f"only {found['succeeded']} of {count} runs succeeded")
            row = database.execute(LOGGED, (self._posted[name], began)).fetchone()
        expected = count * len(document["nodes"])
        if row is None or row["logged"] != expected:
            raise RuntimeError(f"of {expected} successful nodes the event log has {row}")
        return took

    async def trigger(self, name: str, count: int, connections: int = _CONNECTIONS) -> list[float]:
        """Trigger ``count`` runs over several connections; the seconds that each answer took."""
        left = iter(range(count))
        took: list[float] = []

        async def one() -> None:
            async with self.http() as http:
                request = http.post(f"/api/v1/graphs/{name}/runs", b"{}")
                for _ in left:
                    began = time.perf_counter()
                    await http.send(request)
                    took.append(time.perf_counter() - began)

        await asyncio.gather(*(one() for _ in range(min(connections, count))))
        return took

    def first_run(self, document: Mapping[str, Any]) -> float:
        """Seconds from posting a graph that is new to the end of its first run."""
        body = json.dumps(document).encode()
        name = document["metadata"]["name"]

        async def work() -> float:
            async with self.http() as trigger, self.http() as events:
                began = time.perf_counter()
                await trigger.send(trigger.post("/api/v1/graphs", body))
                run_id = await _start(trigger, name)
                await _follow(events, run_id)
                return time.perf_counter() - began

        return run(work())

    def post(self, document: Mapping[str, Any]) -> str:
        """Publish a graph unless this was done already; its name."""
        name: str = document["metadata"]["name"]
        if name not in self._posted:
            body = json.dumps(document).encode()

            async def work() -> str:
                async with self.http() as http:
                    answer = await http.send(http.post("/api/v1/graphs", body))
                    return answer.json()["graph_id"]

            self._posted[name] = run(work())
        return name

    def active(self) -> int:
        """How many runs have started and not ended."""
        with connect(self.database) as database:
            row = database.execute(ACTIVE).fetchone()
        return row["active"] if row else 0

    def worker(self) -> int:
        """The process id of the worker role."""
        return self._pids()["worker"]

    def _pids(self) -> dict[str, int]:
        return read_stack(self._state).get("pids", {})

    def http(self) -> Http:
        return Http(self.base, self.headers)


def start(
    processes: Processes, folder: Path, environment: Mapping[str, str], name: str = "graphwright"
) -> tuple[Graphwright, Child]:
    """Start a stack whose state is in ``folder``. ``environment`` names its databases.

    Raises RuntimeError with the end of its log when it does not come up.
    """
    read, write = os.pipe()
    command = (sys.executable, "-m", "graphwright", "up", "--report-to", str(write))
    child = processes.start(
        name,
        command,
        environment={**own_environment(folder), **environment},
        how=signal.SIGTERM,
        pass_fds=(write,),
    )
    os.close(write)
    with os.fdopen(read, "rb") as report:
        said = report.read()  # how its examples ended: no matter of ours
    if not said:
        raise RuntimeError(f"the stack did not come up: {child.log_tail()}")
    return Graphwright(child, folder, read_stack(folder)), child


def own_environment(folder: Path) -> dict[str, str]:
    """Ours without the user's own settings, on free ports, and with its state in ``folder``."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("GRAPHWRIGHT_")}
    ports = {f"GRAPHWRIGHT_{part}_PORT": "0" for part in ("API", "HOOKS", "CODE", "DAGSTER")}
    # Many requests are asked of one tenant here: the limits count, and are not reached.
    limits = {f"GRAPHWRIGHT_REQUESTS_PER_MINUTE{of}": "100000000" for of in ("", "_ADDRESS")}
    return {**plain, **ports, **limits, "GRAPHWRIGHT_STATE": str(folder)}


async def run_to_end(trigger: Http, events: Http, name: str) -> float:
    began = time.perf_counter()
    return await _follow(events, await _start(trigger, name)) - began


async def _start(http: Http, name: str) -> str:
    answer = await http.send(http.post(f"/api/v1/graphs/{name}/runs", b"{}"))
    return answer.json()["run_id"]


async def _follow(http: Http, run_id: str) -> float:
    """Read a run's events to their end; the moment at which the terminal one was there."""
    ended, last = 0.0, b""
    async for chunk in http.stream(http.get(f"{_run(run_id)}/events", "text/event-stream")):
        last = chunk
        if not ended and any(end in chunk for end in _ENDS):
            ended = time.perf_counter()
    if not ended or _ENDS[0] not in last:
        raise RuntimeError(f"run {run_id} did not succeed: {last[-500:]!r}")
    return ended


def _run(run_id: str) -> str:
    return f"/api/v1/runs/{run_id}"


def _took(record: Mapping[str, Any]) -> float:
    began, ended = (
        datetime.fromisoformat(record[name]).timestamp() for name in ("started_at", "ended_at")
    )
    return ended - began
