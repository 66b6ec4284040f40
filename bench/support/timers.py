"""A million timers: 100 of each of 10,000 graphs that belong to 1,000 tenants.

They are copies of the timers of one graph, made by SQL. Each graph counts as one that has run: it
is noted which snapshots its runs have, so that a dispatcher need not compile it. No timer has
params like another's, and none is due before about two weeks have passed.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString

from bench.engines.graphwright import Graphwright
from bench.engines.web import run
from bench.support.graphs import document, transform
from bench.support.site import say
from foundation.database import connect

TENANTS: Final = 1_000
GRAPHS: Final = 10_000
TIMERS: Final = 100
"""Of each graph."""

_NAME: Final = "timers-of-bench"
_AWAY: Final = timedelta(days=14)

# The published graph of the tenant `default`, for all others.
COPIED_GRAPHS: Final[LiteralString] = """
WITH tenants AS (
    INSERT INTO graphwright.tenants (tenant)
    SELECT 'tenant-' || number FROM generate_series(0, %(tenants)s - 1) number
)
INSERT INTO graphwright.graphs (tenant, graph_id, name, version)
SELECT 'tenant-' || number %% %(tenants)s, uuidv7(), 'graph-' || number, 1
FROM generate_series(0, %(graphs)s - 1) number
"""
COPIED_VERSIONS: Final[LiteralString] = """
WITH copied AS (
    INSERT INTO graphwright.graph_versions (
        tenant, graph_version_id, graph_id, version, fingerprint, document, node_types, author
    )
    SELECT g.tenant, uuidv7(), g.graph_id, 1, v.fingerprint, replace(v.document, %(name)s, g.name),
        v.node_types, v.author
    FROM graphwright.graphs g, graphwright.graph_versions v
    WHERE g.tenant <> 'default' AND v.tenant = 'default'
    RETURNING graph_version_id
)
INSERT INTO kvs (key, value)
SELECT replace(k.key, v.graph_version_id::text, c.graph_version_id::text), k.value
FROM copied c, graphwright.graph_versions v JOIN kvs k ON k.key LIKE '%%' || v.graph_version_id
WHERE v.tenant = 'default'
"""
COPIED_TRIGGERS: Final[LiteralString] = """
INSERT INTO graphwright.triggers (tenant, trigger_id, graph_id, name, type, config)
SELECT g.tenant, uuidv7(), g.graph_id, t.name, t.type,
    replace(t.config::text, %(name)s, g.name)::json
FROM graphwright.graphs g, graphwright.triggers t
WHERE g.tenant <> 'default' AND t.tenant = 'default'
"""
COPIED_TIMERS: Final[LiteralString] = """
INSERT INTO graphwright.timers (trigger_id, tenant, due_at, fire_at)
SELECT copy.trigger_id, copy.tenant, o.due_at, o.fire_at
FROM graphwright.triggers copy JOIN graphwright.triggers t USING (name)
JOIN graphwright.timers o ON o.trigger_id = t.trigger_id
WHERE copy.tenant <> 'default' AND t.tenant = 'default'
"""
SETTLE: Final[tuple[LiteralString, ...]] = ("VACUUM ANALYZE", "CHECKPOINT")

STORED: Final[LiteralString] = "SELECT count(*) AS stored, min(due_at) FROM graphwright.timers"


def fill(api: Graphwright) -> int:
    """Make the timers, and 100 that they are copies of; how many there are."""
    began = time.monotonic()
    run(api.trigger(api.post(timed()), 1))  # which notes its snapshots
    given = {"tenants": TENANTS, "graphs": GRAPHS, "name": _NAME}
    with connect(api.database) as database:
        for statement in (COPIED_GRAPHS, COPIED_VERSIONS, COPIED_TRIGGERS, COPIED_TIMERS):
            database.execute(statement, given)
        for settle in SETTLE:
            database.execute(settle)
        row = database.execute(STORED).fetchone()
    assert row is not None
    say(f"  {row['stored']} timers stored in {time.monotonic() - began:.0f} s")
    return row["stored"]


def name_of(number: int) -> str:
    """The name of one of a graph's timers."""
    return f"timer_{number}"


def timed() -> dict[str, Any]:
    """The graph whose timers are copied."""
    day = min(28, (datetime.now(UTC) + _AWAY).day)
    triggers = {
        name_of(number): {
            "type": "timer",
            "cron": f"{number % 60} {number % 24} {day} * *",
            "catch_up": "latest",
            "params": {"graph": _NAME, "number": number},
        }
        for number in range(TIMERS)
    }
    plain = document(_NAME, {"one": transform(1)})
    return {**plain, "params": {"type": "object"}, "triggers": triggers}
