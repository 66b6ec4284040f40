"""How much waits on the queue, and for how long: for whoever reads metrics."""

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any, Final, LiteralString, TypeAlias

import psycopg
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from foundation.database import pinned

_log = logging.getLogger(__name__)

_KEPT_SECONDS: Final = 5.0
_SECONDS: Final = 5

_Row: TypeAlias = tuple[Any, ...]
"""State, weight, runs, and the seconds since the first of them."""

# By weight, since tenants of one weight are served alike. Each tenant's rows are counted in the
# index first, so that policies are looked up once a tenant. Runs before their time wait for nobody.
DEPTH: Final[LiteralString] = """
SELECT q.state, p.weight, sum(q.runs)::bigint AS runs,
    greatest(0, extract(epoch FROM now() - min(q.since)))::float AS oldest
FROM (
    SELECT state, tenant, count(*) AS runs, min(not_before) AS since
    FROM graphwright.run_queue GROUP BY state, tenant
) q
JOIN LATERAL (
    SELECT COALESCE((
        SELECT weight FROM graphwright.tenant_policies WHERE tenant = q.tenant
    ), 1) AS weight
) p ON true
GROUP BY q.state, p.weight
"""


class QueueDepth(Collector):
    """Asks PostgreSQL when somebody looks, every five seconds at most.

    The queue is the whole installation's, so every process that tells of it tells the same.
    """

    def __init__(self, database_url: str) -> None:
        self._url = pinned(database_url, f"-cstatement_timeout={_SECONDS}s")
        self._lock = threading.Lock()
        self._rows: list[_Row] = []
        self._asked_at = -_KEPT_SECONDS

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Without asking."""
        yield from self._families([])

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The runs on the queue, and how long the first of those that could start has waited."""
        with self._lock:
            now = time.monotonic()
            if now - self._asked_at >= _KEPT_SECONDS:
                self._rows, self._asked_at = self._ask(), now
            rows = self._rows
        yield from self._families(rows)

    def _ask(self) -> list[_Row]:
        try:
            with psycopg.connect(
                self._url, connect_timeout=_SECONDS, autocommit=True
            ) as connection:
                return connection.execute(DEPTH).fetchall()
        except psycopg.Error as error:
            _log.warning("the queue cannot be counted: %s", error)
            return []

    def _families(self, rows: list[_Row]) -> Iterator[GaugeMetricFamily]:
        runs = GaugeMetricFamily(
            "graphwright_queue_runs",
            "Runs on the queue, by what they wait for and by their tenants' weight.",
            labels=["state", "weight"],
        )
        oldest = GaugeMetricFamily(
            "graphwright_queue_oldest_seconds",
            "How long the first run that could start has waited for a worker.",
            labels=["weight"],
        )
        for state, weight, count, seconds in rows:
            runs.add_metric([state, str(weight)], count)
            if state == "ready":
                oldest.add_metric([str(weight)], seconds)
        yield runs
        yield oldest
