"""Graph version to Dagster job, on the fly.

One op definition per node type and version; a node's id is an alias of its type's op, ``needs`` are
order-only dependencies. Values do not travel along edges: a node reads what its expressions name.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, cast

from dagster import (
    Backoff,
    DependencyDefinition,
    ExecutorDefinition,
    Field,
    GraphDefinition,
    In,
    IOManagerDefinition,
    Jitter,
    JobDefinition,
    MultiDependencyDefinition,
    NodeInvocation,
    Nothing,
    OpDefinition,
    Out,
    Permissive,
    ResourceDefinition,
    RetryPolicy,
)
from dagster._core.execution.api import create_execution_plan

from dynamic_jobs import naming
from dynamic_jobs.compiling import order as compile_order
from dynamic_jobs.compiling.op_body import op_body
from dynamic_jobs.compiling.prepared import PreparedGraph, PreparedNode, prepare
from dynamic_jobs.compiling.result import CompiledGraph
from dynamic_jobs.executing.executor import StepExecutor
from dynamic_jobs.executing.outputs import OutputIOManager
from dynamic_jobs.executing.runtime import NodeRuntime
from foundation.garbage import collector_paused
from foundation.ids import GraphId
from graph_defs.versions import GraphVersion
from node_types.base import NodeType

_EDGE: Final = "needs"
_KEPT_NODES: Final = 100
"""Nodes for each compiled job that may be kept, over all of them: 10 to 13 kB of memory each."""


class Compiler:
    """Compiles graph versions and keeps the most recently used. Safe to call from any thread."""

    def __init__(self, runtime: NodeRuntime) -> None:
        self._runtime = runtime
        self._kept: OrderedDict[str, CompiledGraph] = OrderedDict()
        self._lock = threading.Lock()
        compile_order.install()

    def cached(self, graph_version_id: str) -> CompiledGraph | None:
        """The compiled version, where it is at hand."""
        with self._lock:
            compiled = self._kept.get(graph_version_id)
            if compiled is not None:
                self._kept.move_to_end(graph_version_id)
            return compiled

    def compile(self, version: GraphVersion) -> CompiledGraph:
        """Compile a version: some milliseconds for ten nodes, so keep it off an event loop.

        Raises ``NodeTypeUnavailable`` where this process lacks one of its node types.
        """
        compiled = self.cached(version.graph_version_id)
        if compiled is None:
            compiled = self._compile(version)
            self._keep(compiled)
        return compiled

    def _keep(self, compiled: CompiledGraph) -> None:
        most = self._runtime.settings.compiled_jobs
        with self._lock:
            self._kept[compiled.graph.version.graph_version_id] = compiled
            nodes = sum(len(each.graph.nodes) for each in self._kept.values())
            while len(self._kept) > 1 and (len(self._kept) > most or nodes > most * _KEPT_NODES):
                _, dropped = self._kept.popitem(last=False)
                nodes -= len(dropped.graph.nodes)

    def _compile(self, version: GraphVersion) -> CompiledGraph:
        with collector_paused():
            graph = prepare(version, self._runtime.catalogue, self._runtime.evaluator)
            job = self._job(graph)
            return CompiledGraph(graph, job, create_execution_plan(job))

    def _job(self, graph: PreparedGraph) -> JobDefinition:
        version = graph.version
        name = naming.job_name(version.name, GraphId(version.graph_id))
        executor = StepExecutor(graph, self._runtime)
        return JobDefinition(
            name=name,
            graph_def=_graph_definition(name, graph, self._runtime),
            description=graph.document.metadata.description,
            executor_def=ExecutorDefinition.hardcoded_executor(executor),
            resource_defs={
                "io_manager": IOManagerDefinition.hardcoded_io_manager(
                    OutputIOManager(self._runtime.settings.database_url, self._runtime.outputs)
                ),
                naming.PARAMS_RESOURCE: _params_resource(graph),
            },
            tags=run_tags(version),
        )


def run_tags(version: GraphVersion) -> dict[str, str]:
    """The tags that say, on every run and job in the Dagster UI, whose it is and of what."""
    return {
        naming.TENANT_TAG: version.tenant,
        naming.GRAPH_TAG: version.name,
        naming.GRAPH_ID_TAG: version.graph_id,
        naming.VERSION_TAG: str(version.version),
        naming.VERSION_ID_TAG: version.graph_version_id,
    }


def _params_resource(graph: PreparedGraph) -> ResourceDefinition:
    """Params travel as this resource's config, so that the launchpad shows and edits them."""
    schema = cast("Mapping[str, Any]", graph.document.params or {})
    properties = cast("Mapping[str, Any]", schema.get("properties", {}))
    defaults: dict[str, Any] = {
        name: spec["default"]
        for name, spec in properties.items()
        if isinstance(spec, dict) and "default" in spec
    }
    return ResourceDefinition(
        resource_fn=lambda context: context.resource_config,
        config_schema=Field(Permissive(), default_value=defaults, is_required=False),
        description="The run's params.",
    )


def _graph_definition(name: str, graph: PreparedGraph, runtime: NodeRuntime) -> GraphDefinition:
    ops = {node.type.name: node.type for node in graph.nodes.values()}
    definitions = {kind: _op(type_, graph, runtime) for kind, type_ in ops.items()}
    after = {name: DependencyDefinition(name) for name in graph.nodes}
    return GraphDefinition(
        name=name,
        node_defs=list(definitions.values()),
        dependencies={
            NodeInvocation(
                definitions[node.type.name].name, alias=node.id, retry_policy=_retry_policy(node)
            ): (
                {_EDGE: MultiDependencyDefinition([after[need] for need in node.needs])}
                if node.needs
                else {}
            )
            for node in graph.nodes.values()
        },
    )


def _retry_policy(node: PreparedNode) -> RetryPolicy | None:
    """The node's retries, for Dagster's own executors to see to.

    They know no longest delay, and of jitter only that of a whole delay.
    """
    retry = node.retry
    if retry is None:
        return None
    return RetryPolicy(
        max_retries=retry.limit,
        delay=retry.delay_seconds,
        backoff=Backoff.EXPONENTIAL if retry.backoff == "exponential" else None,
        jitter=Jitter.FULL if retry.jitter == 1 else None,
    )


def _op(node_type: NodeType[Any, Any], graph: PreparedGraph, runtime: NodeRuntime) -> OpDefinition:
    return OpDefinition(
        name=naming.op_name(node_type.name, node_type.version),
        compute_fn=op_body(graph, runtime),
        ins={_EDGE: In(Nothing)},
        outs={"result": Out(io_manager_key="io_manager")},
        description=node_type.__doc__,
        required_resource_keys={naming.PARAMS_RESOURCE},
        code_version=str(node_type.version),
    )
