"""The platforms of one process, and the threads in which it follows steps on them."""

import importlib
import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Final, LiteralString

from pydantic import BaseModel

from dynamic_jobs.platforms.base import Ending, Step, StepLimits, StepPlatform
from foundation.database import connect
from foundation.settings import Settings
from graph_defs.placement_policy import PlacementPolicy
from graph_defs.step_policy import StepPolicy
from node_types.base import NodeContext, PlatformNodeType

POLICY: Final[LiteralString] = """
SELECT placement FROM graphwright.tenant_policies WHERE tenant = %s
"""

_PLATFORMS: Final = {
    "docker.run": ("dynamic_jobs.platforms.docker", "DockerPlatform"),
    "kubernetes.job": ("dynamic_jobs.platforms.kubernetes", "KubernetesPlatform"),
    "aws.lambda": ("dynamic_jobs.platforms.aws_lambda", "LambdaPlatform"),
    "aws.batch": ("dynamic_jobs.platforms.aws_batch", "BatchPlatform"),
}
"""By name of node type. Each imports its cloud's library, so none is imported before its first
step."""


class Platforms:
    """Runs steps. Nothing is opened or imported before the first."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limits = StepLimits(
            log_lines=settings.step_log_lines,
            start_seconds=settings.placing_timeout_seconds,
            grace_seconds=settings.cancel_grace_seconds,
            aws_worker_credentials=settings.aws_worker_credentials,
        )
        self._threads: ThreadPoolExecutor | None = None
        self._made: dict[str, StepPlatform] = {}
        self._lock = threading.Lock()

    @property
    def threads(self) -> Executor:
        """For steps alone: they last, and must not keep other nodes from theirs."""
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(
                    self._settings.worker_steps, thread_name_prefix="step"
                )
            return self._threads

    def run(
        self,
        node_type: PlatformNodeType[Any, Any],
        given: BaseModel,
        context: NodeContext,
        ending: Ending,
    ) -> BaseModel:
        """Run a step to its end, in one of the threads. Raises GraphwrightError."""
        platform = self._platform(node_type.name)
        step = Step(context, ending, self._policy(context.tenant), self._limits)
        return node_type.Output.model_validate(platform.run(given, step))

    def close(self) -> None:
        """No step is followed any more; those that are under way have been told to end."""
        with self._lock:
            if self._threads is not None:
                self._threads.shutdown(wait=False, cancel_futures=True)

    def _platform(self, name: str) -> StepPlatform:
        with self._lock:
            if name not in self._made:
                module, kind = _PLATFORMS[name]
                self._made[name] = getattr(importlib.import_module(module), kind)()
            return self._made[name]

    def _policy(self, tenant: str) -> StepPolicy:
        """What holds now: the operator may have changed it since the graph was published."""
        with connect(self._settings.database_url) as connection:
            row = connection.execute(POLICY, (tenant,)).fetchone()
        placement = None if row is None else row["placement"]
        return PlacementPolicy.model_validate(placement or {}).steps
