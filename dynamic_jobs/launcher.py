"""Our ``RunLauncher``: warm workers claim runs from the queue, so there is nothing to launch."""

from collections.abc import Mapping
from typing import Any

from dagster._config.config_schema import UserConfigSchema
from dagster._core.launcher.base import LaunchRunContext, RunLauncher
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from foundation.errors import Conflict


class WarmRunLauncher(RunLauncher[Any], ConfigurableClass):
    """Where ``isolation`` is ``warm``: runs stay with the workers."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__()
        self._inst_data = inst_data

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "WarmRunLauncher":
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        raise Conflict(
            "runs are claimed by warm workers, not launched", run_id=context.dagster_run.run_id
        )

    def terminate(self, run_id: str) -> bool:
        """The coordinator cancels; Dagster asks it, not the launcher."""
        return self._instance.run_coordinator.cancel_run(run_id)
