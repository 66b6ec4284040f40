"""The workspace window: the graphs that changed or ran last, as jobs in the Dagster UI.

Load time stays constant while stored graphs grow: the code server reads the window anew each time
that the Dagster UI reloads the location, without a new process.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import AbstractSet, Final, LiteralString  # noqa: UP035 - as in the base class

from dagster import (
    DagsterInvariantViolationError,
    JobDefinition,
    RepositoryData,
    ResourceDefinition,
    ScheduleDefinition,
    SensorDefinition,
)

from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.compiling.prepared import NodeTypeUnavailable
from foundation.database import Connection
from foundation.ids import GraphVersionId, TenantId
from graph_defs.stored_versions import load_version

_log = logging.getLogger(__name__)

WINDOW: Final[LiteralString] = """
SELECT recent.tenant, v.graph_version_id::text
FROM (
    (SELECT tenant, graph_id FROM graphwright.recent_graphs ORDER BY used_at DESC LIMIT %(size)s)
    UNION
    (SELECT tenant, graph_id FROM graphwright.graphs WHERE pinned LIMIT %(size)s)
) recent, LATERAL (
    SELECT version FROM graphwright.graphs
    WHERE tenant = recent.tenant AND graph_id = recent.graph_id LIMIT 1
) g, LATERAL (
    SELECT graph_version_id FROM graphwright.graph_versions
    WHERE tenant = recent.tenant AND graph_id = recent.graph_id AND version = g.version LIMIT 1
) v
"""


def window_versions(connection: Connection, size: int) -> frozenset[str]:
    """The ids of the graph versions that the window shows just now."""
    rows = connection.execute(WINDOW, {"size": size})
    return frozenset(row["graph_version_id"] for row in rows)


class WindowRepository(RepositoryData):
    """A Dagster repository whose jobs are read from the store; sensors and schedules are fixed."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        compiler: Compiler,
        size: int,
        sensors: Sequence[SensorDefinition] = (),
        schedules: Sequence[ScheduleDefinition] = (),
    ) -> None:
        self._connect = connect
        self._compiler = compiler
        self._size = size
        self._sensors = sensors
        self._schedules = schedules
        self._listed: Mapping[str, JobDefinition] = {}

    def get_all_sensors(self) -> Sequence[SensorDefinition]:
        return self._sensors

    def get_all_schedules(self) -> Sequence[ScheduleDefinition]:
        return self._schedules

    def get_all_jobs(self) -> Sequence[JobDefinition]:
        """The published versions of the window's graphs, compiled; and what schedules launch."""
        jobs = {job.name: job for job in self._scheduled_jobs()}
        with self._connect() as connection:
            rows = connection.execute(WINDOW, {"size": self._size}).fetchall()
            for row in rows:
                version_id = GraphVersionId(row["graph_version_id"])
                try:
                    compiled = self._compiler.cached(version_id) or self._compiler.compile(
                        load_version(connection, TenantId(row["tenant"]), version_id)
                    )
                except NodeTypeUnavailable as error:
                    _log.warning("left out of the workspace: %s", error)
                    continue
                jobs[compiled.job.name] = compiled.job
        self._listed = jobs
        return list(jobs.values())

    def get_job(self, job_name: str) -> JobDefinition:
        """The job of this name: as it was listed last, or else as it is now.

        The UI lists all jobs and then asks for one after the other.
        """
        if job_name not in self._listed:
            self.get_all_jobs()
        try:
            return self._listed[job_name]
        except KeyError:
            raise DagsterInvariantViolationError(
                f"Could not find job {job_name} among the graphs that changed or ran last"
            ) from None

    def has_job(self, job_name: str) -> bool:
        return job_name in self._listed or super().has_job(job_name)

    def _scheduled_jobs(self) -> Iterator[JobDefinition]:
        for schedule in self._schedules:
            if isinstance(schedule.job, JobDefinition):
                yield schedule.job

    def get_top_level_resources(self) -> Mapping[str, ResourceDefinition]:
        return {}

    def get_env_vars_by_top_level_resource(self) -> Mapping[str, AbstractSet[str]]:
        return {}
