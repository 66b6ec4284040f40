"""The workspace window: the graphs that changed or ran last, as jobs in the Dagster UI.

Load time stays constant while stored graphs grow: the code server reads the window anew each time
that the Dagster UI reloads the location, without a new process.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import AbstractSet, Final, LiteralString  # noqa: UP035 - as in the base class

from dagster import JobDefinition, RepositoryData, ResourceDefinition

from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.compiling.prepared import NodeTypeUnavailable
from foundation.database import Connection
from foundation.ids import GraphVersionId, TenantId
from graph_defs.store import load_version

_log = logging.getLogger(__name__)

WINDOW: Final[LiteralString] = """
SELECT v.tenant, v.graph_version_id::text
FROM (
    (SELECT tenant, graph_id FROM graphwright.recent_graphs ORDER BY used_at DESC LIMIT %(size)s)
    UNION
    (SELECT tenant, graph_id FROM graphwright.graphs WHERE pinned LIMIT %(size)s)
) recent
JOIN graphwright.graphs g ON g.tenant = recent.tenant AND g.graph_id = recent.graph_id
JOIN graphwright.graph_versions v
    ON v.tenant = g.tenant AND v.graph_id = g.graph_id AND v.version = g.version
"""


def window_versions(connection: Connection, size: int) -> frozenset[str]:
    """The ids of the graph versions that the window shows just now."""
    rows = connection.execute(WINDOW, {"size": size})
    return frozenset(row["graph_version_id"] for row in rows)


class WindowRepository(RepositoryData):
    """A Dagster repository whose jobs are read from the store."""

    def __init__(self, connect: Callable[[], Connection], compiler: Compiler, size: int) -> None:
        self._connect = connect
        self._compiler = compiler
        self._size = size

    def get_all_jobs(self) -> Sequence[JobDefinition]:
        """The published versions of the window's graphs, compiled."""
        jobs: list[JobDefinition] = []
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
                jobs.append(compiled.job)
        return jobs

    def get_top_level_resources(self) -> Mapping[str, ResourceDefinition]:
        return {}

    def get_env_vars_by_top_level_resource(self) -> Mapping[str, AbstractSet[str]]:
        return {}
