"""What the tests of steps on other platforms share."""

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from psycopg.types.json import Jsonb
from pydantic import BaseModel, JsonValue

from dynamic_jobs.platforms.base import Ending, Step, StepLimits, StepPlatform
from foundation.ids import RunId
from graph_defs.step_policy import StepPolicy
from node_types.base import NodeContext, NodePolicy
from tests.dynamic_jobs.conftest import TENANT, Bench


def allow(bench: Bench, **steps: Any) -> None:
    """What the tenant's steps may use from now on."""
    statement = "UPDATE graphwright.tenants SET placement = %s WHERE tenant = ''"
    bench.connection.execute(statement, (Jsonb({"steps": steps}),))


def wait_for_line(bench: Bench, run_id: RunId, line: str, seconds: float = 30) -> None:
    """Until the line is an event of the run, while the run goes on."""
    statement = """
        SELECT 1 FROM event_logs WHERE run_id = %s AND event::jsonb ->> 'user_message' = %s
    """
    deadline = time.monotonic() + seconds
    while bench.connection.execute(statement, (run_id, line)).fetchone() is None:
        assert bench.row(run_id)["status"] in ("queued", "running"), bench.row(run_id)
        assert time.monotonic() < deadline, f"no event says {line!r}"
        time.sleep(0.02)


def removed() -> None:
    """Until what steps of this process have left is removed: none waits long for that itself."""
    for thread in threading.enumerate():
        if thread.name == "removing-step":
            thread.join(60)


def until_none(found: Callable[[], Collection[Any]]) -> None:
    """Until nothing is found: a cluster removes pods after it has said so."""
    deadline = time.monotonic() + 60
    while left := found():
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


@dataclass
class Told:
    """A step, and what came of it: without a worker, to test what a platform does with it."""

    policy: StepPolicy
    node: str = "step"
    log_lines: int = 1_000
    aws_worker_credentials: bool = False
    start_seconds: float = 60
    logs: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    assets: list[tuple[list[str], dict[str, Any]]] = field(
        default_factory=list[tuple[list[str], dict[str, Any]]]
    )
    ending: Ending = field(default_factory=Ending)
    said: threading.Condition = field(default_factory=threading.Condition)

    @property
    def lines(self) -> list[str]:
        return [text for _, text in self.logs]

    def wait_for(self, line: str, seconds: float = 30) -> None:
        """Until the step has logged the line."""
        with self.said:
            assert self.said.wait_for(lambda: line in self.lines, seconds), self.logs

    def run(self, platform: StepPlatform, given: BaseModel) -> JsonValue:
        return platform.run(given, self.step())

    def step(self) -> Step:
        def log(level: str, text: str) -> None:
            with self.said:
                self.logs.append((level, text))
                self.said.notify_all()

        def materialize(key: Sequence[str], metadata: Mapping[str, JsonValue]) -> None:
            self.assets.append((list(key), dict(metadata)))

        async def wait(_: datetime) -> None:
            await asyncio.get_running_loop().create_future()

        context = NodeContext(
            tenant=TENANT,
            run_id="01890a5d-ac96-774b-bcce-b302099a8057",
            node=self.node,
            attempt=1,
            key=f"01890a5d-ac96-774b-bcce-b302099a8057.{self.node}",
            started_at=datetime.now(UTC),
            policy=NodePolicy(),
            log=log,
            materialize=materialize,
            wait=wait,
            cancelled=self.ending,
        )
        limits = StepLimits(
            log_lines=self.log_lines,
            start_seconds=self.start_seconds,
            grace_seconds=5,
            aws_worker_credentials=self.aws_worker_credentials,
        )
        return Step(context, self.ending, self.policy, limits)
