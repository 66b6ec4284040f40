"""What expressions can name: ``params``, ``nodes``, ``run``, ``trigger``."""

from collections.abc import Mapping
from typing import Any

from dynamic_jobs.compiling.prepared import PreparedGraph
from dynamic_jobs.executing.active import ActiveRun
from foundation.ids import NodeId
from graph_defs.expressions import Ended, Scope


def run_scope(
    graph: PreparedGraph,
    active: ActiveRun,
    outputs: Mapping[NodeId, Any],
    without_output: Mapping[NodeId, Ended],
) -> Scope:
    """The scope of a run. How nodes ended is read when an expression is, so it may still grow."""
    return Scope(
        params=active.params,
        nodes=outputs,
        run={
            "id": active.run_id,
            "graph": graph.version.name,
            "version": graph.version.version,
            "created_at": active.created_at,
        },
        trigger=active.trigger,
        without_output=without_output,
    )
