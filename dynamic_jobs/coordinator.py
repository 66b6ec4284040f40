"""Our ``RunCoordinator``: what the Dagster UI, its daemon or GraphQL launches goes the way of our
own triggers, through the queue to a warm worker.

Dagster inserts the run before it calls this, in another transaction; a run that is cut off in
between is found by the workers (workers/adopting.py).
"""

import time
from collections.abc import Mapping
from typing import Any, Final, LiteralString, cast

import orjson
from dagster import DagsterEventType, DagsterRun
from dagster._config.config_schema import UserConfigSchema
from dagster._core.run_coordinator.base import RunCoordinator, SubmitRunContext
from dagster._core.storage.tags import RESUME_RETRY_TAG
from dagster._serdes import ConfigurableClass, ConfigurableClassData, serialize_value
from dagster_shared.record import (
    copy,  # pyright: ignore[reportUnknownVariableType]
)

from dynamic_jobs import naming
from dynamic_jobs.code_pointer import compile_version, evaluator
from dynamic_jobs.compiling.result import CompiledGraph
from dynamic_jobs.controlling.cancelling import cancel
from dynamic_jobs.controlling.records import run_record
from dynamic_jobs.controlling.rerunning import unfinished
from dynamic_jobs.creating import new_run
from dynamic_jobs.creating.concurrency import GraphConcurrency
from dynamic_jobs.creating.statements import ASKED, INSERT_OURS, STATE, TOUCH_GRAPHS
from dynamic_jobs.queueing.admission import admit
from dynamic_jobs.queueing.waking import WAKE
from dynamic_jobs.storage import event_storage_of
from foundation.database import Connection, connect
from foundation.errors import Conflict, Invalid
from foundation.ids import GraphVersionId, RunId, TenantId
from foundation.settings import Limits
from graph_defs.json_values import JsonObject
from graph_defs.params import bind_params

# What the operator launches is bound by no quota, and waits for its place where concurrency is
# limited, whatever becomes of triggers then.
_GIVEN: Final[LiteralString] = f"""{ASKED}, given AS MATERIALIZED (
    SELECT a.*, p.max_running IS NOT NULL AS limited, (
        SELECT paused FROM graphwright.graphs g
        WHERE g.tenant = a.tenant AND g.graph_id = a.graph_id
    ) AS paused
    FROM asked a LEFT JOIN graphwright.tenant_policies p ON p.tenant = a.tenant
)"""  # noqa: S608 - made of constants

# Both halves of a launch begin with the same row. Between them it is on the queue as `launching`,
# so that a launch that was cut off is found.
INSERT: Final[LiteralString] = f"""
WITH {_GIVEN}, queued AS (SELECT run_id, 0 AS id FROM given), begun AS (
    INSERT INTO graphwright.run_queue (run_id, tenant, graph_id, state)
    SELECT run_id::uuid, tenant, graph_id, 'launching' FROM given ON CONFLICT DO NOTHING
)
{INSERT_OURS} ON CONFLICT DO NOTHING
"""  # noqa: S608 - made of constants

ENQUEUE_AND_WAKE: Final[LiteralString] = f"""
WITH {_GIVEN}, enqueued AS (
    UPDATE graphwright.run_queue q SET
        state = {STATE}, slot = given.slot, slot_limit = given.slot_limit,
        limited = COALESCE(given.limited, false)
    FROM given WHERE q.run_id = given.run_id::uuid AND q.state = 'launching'
), {TOUCH_GRAPHS}
{WAKE}
"""  # noqa: S608 - made of constants

TRIGGER: Final[LiteralString] = (
    "SELECT trigger FROM graphwright.runs WHERE tenant = %s AND run_id = %s"
)

DELETED: Final[LiteralString] = """
SELECT FROM graphwright.graphs
WHERE tenant = %s AND graph_id = %s AND deleted_at IS NOT NULL
"""

SET_BODY: Final[LiteralString] = "UPDATE runs SET run_body = %s WHERE run_id = %s"


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
            Invalid: the run is of no graph, or of a deleted one, or its params do not fit the
                graph's schema; Dagster shows the message to whoever launched it.
        """
        run = context.dagster_run
        if run.job_name == naming.DISPATCH_TIMERS:
            return self._instance.launch_run(run.run_id, context.workspace)
        return self.enqueue(run)

    def enqueue(self, run: DagsterRun) -> DagsterRun:
        """:meth:`submit_run`; also for a run with which that was cut off anywhere."""
        if naming.VERSION_ID_TAG not in run.tags or naming.TENANT_TAG not in run.tags:
            raise Invalid(f"{run.job_name} is not a job of a Graphwright graph", [])
        storage = event_storage_of(self._instance)
        with connect(storage.postgres_url) as connection:
            compiled = _compiled(connection, run)
            run = self._from_failure(connection, run, compiled)
            values = _values(run, compiled, _cause(connection, run))
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
            admit(connection, [run.tags[naming.TENANT_TAG]])
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

    def _from_failure(
        self, connection: Connection, run: DagsterRun, compiled: CompiledGraph
    ) -> DagsterRun:
        """A re-execution from failure runs the nodes that our own would run.

        Dagster leaves out what was skipped, since in its own executors that is no consequence of a
        failure, and what follows on it.
        """
        if run.tags.get(RESUME_RETRY_TAG) != "true" or run.parent_run_id is None:
            return run
        tenant, document = TenantId(run.tags[naming.TENANT_TAG]), compiled.graph.version.document
        steps = unfinished(connection, tenant, RunId(run.parent_run_id), document)
        if not steps or set(steps) == set(run.step_keys_to_execute or ()):
            return run
        plan = self._instance.run_storage.add_execution_plan_snapshot(
            compiled.partial_plan_snapshot(steps)
        )
        run = copy(run, step_keys_to_execute=steps, execution_plan_snapshot_id=plan)
        connection.execute(SET_BODY, (serialize_value(run), run.run_id))
        return run


def _compiled(connection: Connection, run: DagsterRun) -> CompiledGraph:
    compiled = compile_version(
        connection,
        TenantId(run.tags[naming.TENANT_TAG]),
        GraphVersionId(run.tags[naming.VERSION_ID_TAG]),
    )
    if run.job_name != compiled.job.name:  # tags can be edited in the launchpad
        raise Invalid(f"the tags of {run.job_name} name another graph", [])
    version = compiled.graph.version
    # Dagster's UI lists it until the next reload, and shows its runs for longer.
    if connection.execute(DELETED, (version.tenant, version.graph_id)).fetchone() is not None:
        raise Invalid(f"the graph {version.name} was deleted", [])
    return compiled


def _values(run: DagsterRun, compiled: CompiledGraph, cause: JsonObject) -> dict[str, str]:
    """The values of :data:`INSERT` and :data:`ENQUEUE_AND_WAKE`."""
    params = bind_params(compiled.graph.document.params, _params(run), Limits())
    rule = GraphConcurrency.of(compiled.graph.version, evaluator())
    new = new_run.NewRun(
        RunId(run.run_id),
        params,
        trigger=cause,
        author="dagster",
        slot=rule and rule.slot(evaluator(), params, cause),
    )
    row = {
        **new_run.version_values(compiled.graph.version),
        **new_run.run_values(new, time.time()),
        "parent_run_id": run.parent_run_id,
    }
    return {"runs": orjson.dumps([row]).decode()}


def _cause(connection: Connection, run: DagsterRun) -> JsonObject:
    """A run that repeats another has the same trigger."""
    asked = (run.tags[naming.TENANT_TAG], run.parent_run_id)
    parent = connection.execute(TRIGGER, asked).fetchone()
    return {"type": "dagster"} if parent is None else parent["trigger"]


def _params(run: DagsterRun) -> dict[str, Any]:
    config: Any = run.run_config
    for key in ("resources", naming.PARAMS_RESOURCE, "config"):
        config = cast("Mapping[str, Any]", config).get(key) or {}
    return dict(config)
