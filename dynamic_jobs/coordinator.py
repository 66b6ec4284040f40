"""Our ``RunCoordinator``: what the Dagster UI, its daemon or GraphQL launches goes the way of our
own triggers, through the queue to a warm worker.

Dagster inserts the run before it calls this, in another transaction; a run that is cut off in
between has no queue row.
"""

import time
from collections.abc import Mapping
from typing import Any, Final, LiteralString, cast

import orjson
from dagster import DagsterEventType, DagsterRun
from dagster._config.config_schema import UserConfigSchema
from dagster._core.run_coordinator.base import RunCoordinator, SubmitRunContext
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from dynamic_jobs import naming
from dynamic_jobs.code_pointer import compile_version
from dynamic_jobs.control import cancel, run_record
from dynamic_jobs.creating import new_run
from dynamic_jobs.storage import event_storage_of
from foundation.database import Connection, connect
from foundation.errors import Conflict, Invalid
from foundation.ids import GraphVersionId, RunId, TenantId
from foundation.settings import Limits
from graph_defs.params import bind_params

INSERT: Final[LiteralString] = f"""
WITH {new_run.GIVEN}, queued AS (SELECT run_id, 0 AS id FROM given)
{new_run.INSERT_OURS} ON CONFLICT DO NOTHING
"""  # noqa: S608 - made of constants

ENQUEUE_AND_WAKE: Final[LiteralString] = f"""
WITH {new_run.GIVEN}, enqueued AS ({new_run.ENQUEUE} ON CONFLICT DO NOTHING),
     {new_run.TOUCH_GRAPHS}
{new_run.WAKE}
"""


class GraphwrightRunCoordinator(RunCoordinator[Any], ConfigurableClass):
    """Queues runs on ``graphwright.run_queue`` and cancels them there or on their worker.

    Not a ``QueuedRunCoordinator``: Dagster's daemon would dequeue from that one too.
    """

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
    ) -> "GraphwrightRunCoordinator":
        return cls(inst_data)

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Queue a run that Dagster has created.

        Raises:
            Invalid: the run is of no graph, or its params do not fit the graph's schema; Dagster
                shows the message to whoever launched it.
        """
        run = context.dagster_run
        if naming.VERSION_ID_TAG not in run.tags or naming.TENANT_TAG not in run.tags:
            raise Invalid(f"{run.job_name} is not a job of a Graphwright graph", [])
        storage = event_storage_of(self._instance)
        with connect(storage.postgres_url) as connection:
            values = self._values(connection, run)
            connection.execute(INSERT, values)
            writer = storage.writer
            run_id = RunId(run.run_id)
            writer.append(
                run_record(
                    run_id,
                    run.job_name,
                    DagsterEventType.PIPELINE_ENQUEUED,
                    "Enqueued by Graphwright.",
                )
            )
            writer.flush(run_id)
            connection.execute(ENQUEUE_AND_WAKE, values)
        return self._instance.get_run_by_id(run.run_id) or run

    def cancel_run(self, run_id: str) -> bool:
        """Whether the run was there to cancel."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or naming.TENANT_TAG not in run.tags:
            return False
        storage = event_storage_of(self._instance)
        with connect(storage.postgres_url) as connection:
            try:
                tenant = TenantId(run.tags[naming.TENANT_TAG])
                cancel(connection, storage.writer, tenant, RunId(run_id))
            except Conflict:
                return False
        return True

    def _values(self, connection: Connection, run: DagsterRun) -> dict[str, str]:
        """The values of :data:`INSERT` and :data:`ENQUEUE_AND_WAKE`."""
        compiled = compile_version(
            connection,
            TenantId(run.tags[naming.TENANT_TAG]),
            GraphVersionId(run.tags[naming.VERSION_ID_TAG]),
        )
        if run.job_name != compiled.job.name:  # tags can be edited in the launchpad
            raise Invalid(f"the tags of {run.job_name} name another graph", [])
        params = bind_params(compiled.graph.document.params, _params(run), Limits())
        new = new_run.NewRun(
            RunId(run.run_id), params, trigger={"type": "dagster"}, author="dagster"
        )
        row = {
            **new_run.version_values(compiled.graph.version),
            **new_run.run_values(new, time.time()),
            "parent_run_id": run.parent_run_id,
        }
        return {"runs": orjson.dumps([row]).decode()}


def _params(run: DagsterRun) -> dict[str, Any]:
    config: Any = run.run_config
    for key in ("resources", naming.PARAMS_RESOURCE, "config"):
        config = cast("Mapping[str, Any]", config).get(key) or {}
    return dict(config)
