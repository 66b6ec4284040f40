"""What an op does under Dagster's own executors: run its node as the step executor would."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar

from dagster import AssetKey, AssetMaterialization, Failure, OpExecutionContext, Output

from dynamic_jobs.compiling.prepared import PreparedGraph
from dynamic_jobs.executing.active import read_active
from dynamic_jobs.executing.backoff import is_retried
from dynamic_jobs.executing.outputs import read_outputs
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.executing.scope import run_scope
from dynamic_jobs.executing.step_events import failure_data
from dynamic_jobs.naming import TENANT_TAG
from foundation.database import connect
from foundation.errors import GraphwrightError
from foundation.ids import NodeId, RunId, TenantId
from node_types.base import NodeContext


class ExecutorUnfit(GraphwrightError):
    """The graph asks for what Dagster's own executors cannot do."""

    code: ClassVar[str] = "executor_unfit"
    status: ClassVar[int] = 409


def op_body(
    graph: PreparedGraph, runtime: NodeRuntime
) -> Callable[[OpExecutionContext, Any], Iterator[Output[Any]]]:
    """The compute function that all ops of a job share: the alias says which node it is."""
    unfit = _unfit(graph)

    def compute(context: OpExecutionContext, _inputs: Any) -> Iterator[Output[Any]]:
        if unfit is not None:  # before any node: Dagster would skip what is to handle failures
            data = failure_data(unfit)
            raise Failure(data.description, data.metadata, allow_retries=False)
        node = graph.nodes[NodeId(context.op_handle.name)]
        tenant, run_id = TenantId(context.run_tags[TENANT_TAG]), RunId(context.run_id)
        with connect(runtime.settings.database_url) as connection:
            active = read_active(connection, tenant, run_id)
            upstream = _upstream(node.given.references)
            outputs = read_outputs(connection, runtime.outputs, tenant, run_id, upstream)
        log = {
            level: getattr(context.log, level) for level in ("debug", "info", "warning", "error")
        }
        attempt = NodeContext(
            tenant=tenant,
            run_id=run_id,
            node=node.id,
            attempt=context.retry_number + 1,
            key=f"{run_id}.{node.id}",
            started_at=datetime.now(UTC),
            policy=runtime.policy,
            log=lambda level, text: log.get(level, context.log.info)(text),
            materialize=lambda key, metadata: context.log_event(
                AssetMaterialization(asset_key=AssetKey(list(key)), metadata=metadata)
            ),
            wait=_wait,
        )
        scope = run_scope(graph, active, outputs, {})
        running = runtime.submit(runtime.runner.run(node, scope, attempt))
        try:
            output = running.result()
        except GraphwrightError as error:
            data = failure_data(error)
            retried = is_retried(node.retry, attempt.attempt, error)
            raise Failure(data.description, data.metadata, allow_retries=retried) from None
        except BaseException:  # Dagster interrupts the step
            running.cancel()
            raise
        yield Output(output.value)

    return compute


def _unfit(graph: PreparedGraph) -> ExecutorUnfit | None:
    if not graph.has_policies and graph.timeout is None:
        return None
    return ExecutorUnfit(
        "this graph has `when`, `continue_on_error` or a time limit for the whole run, which "
        "Dagster's own executors do not know",
        hint="run it on a Graphwright worker, or with the executor that its job comes with",
        graph_version_id=graph.version.graph_version_id,
    )


async def _wait(until: datetime) -> None:
    await asyncio.sleep(max(0.0, until.timestamp() - time.time()))


def _upstream(references: frozenset[str]) -> list[NodeId]:
    return [NodeId(name) for name in references]
