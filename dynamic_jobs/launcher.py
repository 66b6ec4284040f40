"""Our ``RunLauncher``. Workers claim every run from the queue; those that are to be executed
elsewhere they place there, by Dagster's own launchers, which are configured and kept here."""

import threading
from collections.abc import Mapping
from typing import Any, TypeVar

import yaml
from dagster import Field, Permissive
from dagster._config.config_schema import UserConfigSchema
from dagster._core.launcher.base import LaunchRunContext, RunLauncher
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.remote_representation.code_location import GrpcServerCodeLocation
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from dynamic_jobs.naming import DISPATCH_TIMERS, LOCATION
from dynamic_jobs.placing.base import NoSuchPlatform, PlacementFailed, Platform
from foundation.errors import Conflict
from graph_defs.placement import Isolation

L = TypeVar("L", bound=RunLauncher[Any])


class GraphwrightRunLauncher(RunLauncher[Any], ConfigurableClass):
    """Runs of graphs are not launched, but claimed. In its configuration, ``kubernetes`` is that of
    Dagster's ``K8sRunLauncher`` and ``docker`` that of its ``DockerRunLauncher``; without one, no
    run can be placed there."""

    def __init__(
        self,
        inst_data: ConfigurableClassData | None = None,
        *,
        kubernetes: Mapping[str, Any] | None = None,
        docker: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._inst_data = inst_data
        self._configs: dict[Isolation, Mapping[str, Any] | None]
        self._configs = {"kubernetes": kubernetes, "docker": docker}
        self._platforms: dict[Isolation, Platform] = {}
        self._lock = threading.Lock()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        # What is in them is for the launchers to say when one is needed: importing them takes long.
        return {
            "kubernetes": Field(Permissive(), is_required=False),
            "docker": Field(Permissive(), is_required=False),
        }

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "GraphwrightRunLauncher":
        return cls(inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Run a job of ours in the code server, as Dagster does by default. Runs of graphs are
        claimed: for those it raises Conflict."""
        run = context.dagster_run
        if run.job_name != DISPATCH_TIMERS or context.workspace is None:
            raise Conflict("runs are claimed by workers, not launched", run_id=run.run_id)
        location = context.workspace.get_code_location(LOCATION)
        if not isinstance(location, GrpcServerCodeLocation):
            raise Conflict(f"no code server has {run.job_name}", run_id=run.run_id)
        DefaultRunLauncher.launch_run_from_grpc_client(self._instance, run, location.client)

    def terminate(self, run_id: str) -> bool:
        """The coordinator cancels; Dagster asks it, not the launcher."""
        return self._instance.run_coordinator.cancel_run(run_id)

    def platform(self, isolation: Isolation) -> Platform:
        """Where runs of this isolation are placed. Blocks when one is first asked for.

        Raises:
            NoSuchPlatform: it is not configured here.
            PlacementFailed: its configuration is wrong.
        """
        with self._lock:
            found = self._platforms.get(isolation)
            if found is None:
                found = self._platforms[isolation] = self._make(isolation)
            return found

    def _make(self, isolation: Isolation) -> Platform:
        match isolation:
            case "kubernetes":
                from dagster_k8s import K8sRunLauncher

                from dynamic_jobs.placing.kubernetes import KubernetesPlatform

                return KubernetesPlatform(self._inner(isolation, K8sRunLauncher))
            case "docker":
                from dagster_docker import DockerRunLauncher

                from dynamic_jobs.placing.docker import DockerPlatform

                return DockerPlatform(self._inner(isolation, DockerRunLauncher))
            case "warm" | "process":
                raise PlacementFailed(f"runs with isolation {isolation} stay with the workers")

    def _inner(self, isolation: Isolation, kind: type[L]) -> L:
        """Dagster's launcher, as its configuration says."""
        config = self._configs.get(isolation)
        if config is None:
            raise NoSuchPlatform(
                f"this installation places no runs by {isolation}",
                hint=f"The operator configures `run_launcher.config.{isolation}` in dagster.yaml.",
            )
        data = ConfigurableClassData(kind.__module__, kind.__name__, yaml.safe_dump(dict(config)))
        try:
            launcher = data.rehydrate()
        except Exception as error:  # whatever it says of it; the operator may mend it
            raise PlacementFailed(
                f"run_launcher.config.{isolation} in dagster.yaml is wrong: {error}", passing=True
            ) from error
        assert isinstance(launcher, kind)
        launcher.register_instance(self._instance)
        return launcher
