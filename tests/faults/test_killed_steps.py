"""Workers are killed with -9 while their nodes run elsewhere: no step goes on beside another
attempt at it, or after its run."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg.types.json import Jsonb

from foundation.database import connect
from tests.faults.installation import Installation, installation
from tests.faults.outside import Outside, outside
from tests.faults.steps_elsewhere import UP, Elsewhere, containers, node, pods
from tests.faults.test_killed_workers import publish, trigger
from tests.forking import Forked

Where = Callable[[Path], AbstractContextManager[Elsewhere]]

SAID = """
SELECT count(*) AS n FROM event_logs
WHERE run_id = %s AND event::jsonb ->> 'user_message' = %s
"""
HOLDER = """
SELECT w.pid FROM graphwright.runs r JOIN graphwright.workers w USING (worker) WHERE r.run_id = %s
"""
STARTS = """
SELECT count(*) AS n FROM event_logs
WHERE run_id = %s AND step_key = %s AND dagster_event_type = 'STEP_START'
"""
# To all tenants that have no value of their own.
ALLOW = "UPDATE graphwright.tenants SET placement = %s WHERE tenant = ''"
# As if the runs had ended so long ago that no worker can be about to end their steps.
AGE = "UPDATE graphwright.runs SET ended_at = ended_at - interval '1 hour'"


def document(where: Elsewhere, name: str, url: str) -> dict[str, Any]:
    """An effect, a step elsewhere and one more node."""
    call: dict[str, Any] = {"method": "POST", "url": url, "json": {}}
    nodes: dict[str, Any] = {
        "first": {"type": "http.request", "with": call},
        "step": node(where, "first"),
        "last": {"type": "data.transform", "needs": ["step"], "with": {"value": 1}},
    }
    return {
        "apiVersion": "graphwright/v1",
        "kind": "Graph",
        "metadata": {"name": name},
        "nodes": nodes,
    }


class Site:
    """An installation whose tenants may have steps there."""

    def __init__(self, made: Installation, where: Elsewhere, world: Outside) -> None:
        self.made = made
        self.where = where
        self.world = world
        self.url = made.api()
        self.headers = made.headers()
        self.execute(ALLOW, Jsonb({"steps": where.policy}))
        for name in ("resumed", "cancelled", "gone"):
            publish(self.url, self.headers, document(where, name, world.url))

    def execute(self, statement: Any, *values: Any) -> dict[str, Any]:
        """The first row, if there is one."""
        with connect(self.made.settings.database_url) as connection:
            cursor = connection.execute(statement, values)
            return (cursor.fetchone() if cursor.description else None) or {}

    def pool(self) -> Forked:
        """Start two workers."""
        pool = self.made.start("worker", worker_processes=2)
        self.made.until_working(2)
        return pool

    def step(self, graph: str) -> tuple[str, str]:
        """A run of this graph whose step is up: the ids of both."""
        before = self.where.there()
        (run_id,) = trigger(self.url, self.headers, graph, 1)
        return run_id, self.new_step(run_id, before)

    def new_step(self, run_id: str, before: set[str], times: int = 1) -> str:
        """The id of the run's step, once it is up for so many times."""
        self.until(lambda: self.execute(SAID, run_id, UP)["n"] == times, "step that is up")
        (new,) = self.where.there() - before
        return new

    def kill_holder(self, run_id: str) -> None:
        """With -9, and nobody is told."""
        os.kill(self.execute(HOLDER, run_id)["pid"], signal.SIGKILL)

    def cancel(self, run_id: str) -> None:
        self.ask("POST", f"/runs/{run_id}/cancel")

    def ask(self, method: str, path: str) -> None:
        answer = httpx.request(
            method, f"{self.url}/api/v1{path}", headers=self.headers, trust_env=False, timeout=60
        )
        assert answer.status_code < 300, answer.text

    def status(self, run_id: str) -> str:
        return self.execute("SELECT status FROM graphwright.runs WHERE run_id = %s", run_id)[
            "status"
        ]

    def until(self, look: Callable[[], bool], what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not look():
            assert time.monotonic() < deadline, f"no {what}; there are {self.where.there()}"
            time.sleep(0.05)


def resumed(site: Site) -> None:
    """Another worker ends what had been started before it starts it again."""
    run_id, step = site.step("resumed")
    site.kill_holder(run_id)
    again = site.new_step(run_id, {step}, times=2)
    site.until(lambda: site.where.there() == {again}, "end of the first attempt")
    site.where.let_go(again)
    site.until(lambda: site.status(run_id) == "succeeded", "success")
    assert site.execute(STARTS, run_id, "first")["n"] == 1
    assert len(site.world.calls[f"{run_id}.first"]) == 1
    # A step's end does not wait long for its removal.
    site.until(lambda: site.where.there() == set(), "removal of the second attempt")


def cancelled(site: Site) -> None:
    """Nobody has the run when it is cancelled."""
    run_id, _ = site.step("cancelled")
    site.kill_holder(run_id)
    site.cancel(run_id)
    site.until(lambda: site.status(run_id) == "cancelled", "end")


def gone(site: Site, pool: Forked) -> Forked:
    """No worker is there for a while, and then the graph is not either."""
    run_id, _ = site.step("gone")
    with suppress(ProcessLookupError):
        os.killpg(pool.pid, signal.SIGKILL)
    pool.wait()
    site.cancel(run_id)
    pool = site.pool()
    site.until(lambda: site.status(run_id) == "cancelled", "end")
    site.ask("DELETE", "/graphs/gone")
    return pool


def killing(folder: Path, place: Where, *, sweep_seconds: float | None) -> None:
    """``sweep_seconds``: how long to wait for what is left to be removed; without it time is made
    to pass."""
    with (
        place(folder) as where,
        outside(delay_seconds=0) as world,
        installation(lease_seconds=2) as made,
    ):
        made.environment |= where.environment
        site = Site(made, where, world)
        pool = site.pool()
        resumed(site)
        cancelled(site)
        pool = gone(site, pool)
        if sweep_seconds is None:
            made.stop([pool])
            site.execute(AGE)
            site.pool()
        # Workers look each minute: what the first look has missed, the second finds.
        site.until(lambda: not where.there(), "sweep", sweep_seconds or 100)


PLACES = pytest.mark.parametrize(
    "place",
    [
        pytest.param(pods, id="kubernetes.job"),
        pytest.param(containers, id="docker.run", marks=pytest.mark.xdist_group("containers")),
    ],
)


@PLACES
@pytest.mark.timeout(180)
def test_steps_of_killed_workers(tmp_path: Path, place: Where) -> None:
    killing(tmp_path, place, sweep_seconds=None)


@PLACES
@pytest.mark.soak
@pytest.mark.timeout(420)
def test_the_sweep_after_steps_of_killed_workers(tmp_path: Path, place: Where) -> None:
    """About two minutes after the end of the runs, by the workers themselves."""
    killing(tmp_path, place, sweep_seconds=240)
