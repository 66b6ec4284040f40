"""What compiling a graph version gives: the job and its plan, and their snapshots.

A worker runs the plan and needs no snapshots; the API stores them. They are made when asked for,
since they take half as long as all the rest.
"""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dagster import JobDefinition
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.snap import ExecutionPlanSnapshot, snapshot_from_execution_plan

from dynamic_jobs.compiling.prepared import PreparedGraph
from dynamic_jobs.compiling.text import text_of
from foundation.garbage import collector_paused
from foundation.ids import NodeId


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """A snapshot as Dagster's run storage keeps it."""

    snapshot_id: str
    """SHA-1 of its text, 40 hex digits."""
    body: bytes
    """Its text, compressed by zlib: of 10,000 nodes 20 MB become 0.5."""

    @classmethod
    def of(cls, snapshot: Any) -> "StoredSnapshot":
        text = text_of(snapshot).encode()
        return cls(hashlib.sha1(text, usedforsecurity=False).hexdigest(), zlib.compress(text))


@dataclass(frozen=True, eq=False)
class CompiledGraph:
    """A version ready to run, as a Dagster job. Threads may share it."""

    graph: PreparedGraph
    job: JobDefinition
    plan: ExecutionPlan

    @cached_property
    def stored_job_snapshot(self) -> StoredSnapshot:
        with collector_paused():
            return StoredSnapshot.of(self.job.get_job_snapshot())

    @cached_property
    def stored_plan_snapshot(self) -> StoredSnapshot:
        with collector_paused():
            return StoredSnapshot.of(self.plan_snapshot)

    @property
    def plan_snapshot(self) -> ExecutionPlanSnapshot:
        return snapshot_from_execution_plan(self.plan, self.job_snapshot_id)

    def partial_plan_snapshot(self, steps: Sequence[NodeId]) -> ExecutionPlanSnapshot:
        """The snapshot of a plan that executes these steps alone."""
        with collector_paused():
            plan = create_execution_plan(self.job, step_keys_to_execute=steps)
            return snapshot_from_execution_plan(plan, self.job_snapshot_id)

    @property
    def job_snapshot_id(self) -> str:
        return self.stored_job_snapshot.snapshot_id

    @property
    def plan_snapshot_id(self) -> str:
        return self.stored_plan_snapshot.snapshot_id
