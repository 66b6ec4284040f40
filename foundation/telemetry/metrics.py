"""What is counted, by the names that Prometheus reads (docs/observability.md).

Instruments belong to their module as loggers do: whoever counts imports them. What they say of all
worker processes together comes from files that these share, so a process that is to take part says
so (``together``) before this module is imported.
"""

from functools import cache
from typing import Any, Final, TypeAlias

import prometheus_client
from prometheus_client import Counter, Gauge, Histogram
from psycopg_pool import AsyncConnectionPool, ConnectionPool

AnyPool: TypeAlias = AsyncConnectionPool[Any] | ConnectionPool[Any]

prometheus_client.disable_created_metrics()

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

HTTP_REQUESTS: Final = Counter(
    "graphwright_http_requests", "Requests answered.", ["route", "method", "status"]
)
HTTP_SECONDS: Final = Histogram(
    "graphwright_http_request_seconds",
    "From a request to the end of its answer; live streams are not in it.",
    ["route", "method"],
    buckets=_SECONDS,
)
STREAM_CLIENTS: Final = Gauge(
    "graphwright_stream_clients",
    "Clients that follow a live stream.",
    ["transport"],
    multiprocess_mode="livesum",
)
RUNS: Final = Counter("graphwright_runs", "Runs that have ended, by how.", ["status"])
NODES: Final = Counter(
    "graphwright_nodes", "Attempts of nodes that have ended, by how.", ["type", "status"]
)
NODE_SECONDS: Final = Histogram(
    "graphwright_node_seconds",
    "From the start of a node's attempt to its end.",
    ["type"],
    buckets=_SECONDS,
)
WRITER_LAG: Final = Histogram(
    "graphwright_event_writer_lag_seconds",
    "Age of the oldest event of a batch when the batch was committed.",
    buckets=_SECONDS,
)
WORKER_RUNS: Final = Gauge(
    "graphwright_worker_runs",
    "Runs that workers hold: executing, or only waiting.",
    ["state"],
    multiprocess_mode="livesum",
)
_POOL: Final = Gauge(
    "graphwright_database_pool_connections",
    "Connections to PostgreSQL: used, idle, and how many there may be (max).",
    ["pool", "state"],
    multiprocess_mode="livesum",
)
_POOL_WAITING: Final = Gauge(
    "graphwright_database_pool_waiting",
    "Who waits for a connection of a pool.",
    ["pool"],
    multiprocess_mode="livesum",
)


@cache
def http_answered(route: str, method: str, status: int) -> Counter:
    """The counter of these answers; all three have few values."""
    return HTTP_REQUESTS.labels(route, method, str(status))


@cache
def http_took(route: str, method: str) -> Histogram:
    """The times of these answers."""
    return HTTP_SECONDS.labels(route, method)


def sample_pool(name: str, pool: AnyPool) -> None:
    """Note how a pool of connections stands just now."""
    stats = pool.get_stats()
    idle = stats.get("pool_available", 0)
    _POOL.labels(name, "idle").set(idle)
    _POOL.labels(name, "used").set(stats.get("pool_size", 0) - idle)
    _POOL.labels(name, "max").set(stats.get("pool_max", 0))
    _POOL_WAITING.labels(name).set(stats.get("requests_waiting", 0))
