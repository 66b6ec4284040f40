"""How our things are called inside Dagster: jobs, ops, tags; and in the object store."""

from typing import Final
from urllib.parse import quote

from foundation.ids import GraphId, RunId, TenantId

LOCATION: Final = "graphwright"
REPOSITORY: Final = "graphwright"
DISPATCH_TIMERS: Final = "dispatch_timers"
"""The one job in the workspace that is of no graph: what the timer schedules launch."""

TENANT_TAG: Final = "graphwright/tenant"
GRAPH_TAG: Final = "graphwright/graph"
GRAPH_ID_TAG: Final = "graphwright/graph_id"
VERSION_TAG: Final = "graphwright/version"
VERSION_ID_TAG: Final = "graphwright/version_id"
TRIGGER_TAG: Final = "graphwright/trigger"

PARAMS_RESOURCE: Final = "params"
"""The resource whose config is the run's params, so that the Dagster launchpad can edit them."""


def job_name(graph_name: str, graph_id: GraphId) -> str:
    """The Dagster job of a graph: ``<name with underscores>__<12 hex of graph_id>``.

    The last 12 digits: those of a UUIDv7 are random, while its first 12 are a time that two graphs
    may share.
    """
    return f"{graph_name.replace('-', '_')}__{graph_id.replace('-', '')[-12:]}"


def op_name(node_type: str, version: int) -> str:
    """The op definition of a node type: one per type and version, whatever graph uses it."""
    return f"{node_type.replace('.', '_')}__v{version}"


def outputs_folder(tenant: TenantId, run_id: RunId) -> str:
    """Where the object store has the large outputs that a run made: the beginning of their keys."""
    return f"outputs/{quote(tenant, safe='')}/{run_id}"
