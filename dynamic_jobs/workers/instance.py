"""The Dagster instance of a warm worker: many runs at once, in threads, and no console."""

from collections.abc import Mapping, Sequence
from logging import Handler
from pathlib import Path
from typing import TYPE_CHECKING

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, Field
from dagster._core.instance.ref import InstanceRef
from dagster._serdes import ConfigurableClassData

from foundation.ids import RunId

if TYPE_CHECKING:
    from dynamic_jobs.executing.runtime import NodeRuntime


class WorkerInstance(DagsterInstance):
    """Stock, but for four answers.

    Stock Dagster configures logging anew for each run, under a lock that another run's thread may
    hold: concurrent runs deadlock. And it prints every event to the console. And its run loop asks
    the database how a run stands that this very process executes, on the event loop.
    """

    runtime: "NodeRuntime"

    @classmethod
    def config_schema(cls) -> dict[str, Field]:
        """What Dagster asks of a custom instance class: settings of its own. There are none."""
        return {}

    @classmethod
    def config_defaults(cls, base_dir: str) -> Mapping[str, ConfigurableClassData | None]:
        return InstanceRef.config_defaults(base_dir)

    def get_yaml_python_handlers(self) -> Sequence[Handler]:
        return []

    @property
    def python_log_level(self) -> str:
        return "CRITICAL"

    def run_will_resume(self, run_id: str) -> bool:
        """A run that is being handed back has been interrupted, but it has not failed."""
        active = self.runtime.active.get(RunId(run_id))
        return active is not None and active.interrupt in ("hand_back", "wait", "pause")

    def get_run_by_id(self, run_id: str) -> DagsterRun | None:
        """From memory, for a run that a worker executes in this process."""
        active = self.runtime.active.get(RunId(run_id))
        if active is None or active.dagster_run is None:
            return super().get_run_by_id(run_id)
        cancelled = active.interrupt == "cancel"
        status = DagsterRunStatus.CANCELING if cancelled else DagsterRunStatus.STARTED
        return active.dagster_run.with_status(status)


def open_instance(home: Path, runtime: "NodeRuntime") -> WorkerInstance:
    """The instance that ``dagster.yaml`` in ``home`` describes, as a worker uses it."""
    kind = {"module": WorkerInstance.__module__, "class": WorkerInstance.__name__}
    ref = InstanceRef.from_dir(str(home), overrides={"instance_class": kind})
    instance = DagsterInstance.from_ref(ref)
    if not isinstance(instance, WorkerInstance):
        raise TypeError(f"dagster.yaml in {home} names another instance class")
    instance.runtime = runtime
    return instance
