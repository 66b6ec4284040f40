"""SQL of timers and backfills."""

from typing import Final, LiteralString

# Rows stay locked until their next due time is written, so each due time is taken once. The lateral
# keeps PostgreSQL from joining, for which it may read all triggers.
CLAIM: Final[LiteralString] = """
WITH due AS MATERIALIZED (
    SELECT trigger_id, tenant, due_at, fire_at FROM graphwright.timers
    WHERE lane = %(lane)s AND fire_at <= %(now)s AND slice = ANY(%(slices)s)
    ORDER BY fire_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
SELECT due.tenant, due.trigger_id::text, due.due_at, due.fire_at, t.*
FROM due LEFT JOIN LATERAL (
    SELECT t.graph_id::text, t.name, t.config::text FROM graphwright.triggers t
    WHERE t.tenant = due.tenant AND t.trigger_id = due.trigger_id LIMIT 1
) t ON true
ORDER BY due.fire_at
"""

# Tenants take turns, each with its longest waiting timers: who has thousands of timers to catch up
# with delays others by one of them. The tenants are found one by one in the index. There are more
# to choose from than are taken, since other dispatchers have locked some, or moved them on.
CLAIM_BEHIND: Final[LiteralString] = """
WITH RECURSIVE tenants AS (
    SELECT min(tenant) AS tenant FROM graphwright.timers WHERE lane = 'behind'
    UNION ALL
    SELECT (
        SELECT min(n.tenant) FROM graphwright.timers n
        WHERE n.lane = 'behind' AND n.tenant > t.tenant
    ) FROM tenants t WHERE t.tenant IS NOT NULL
), turns AS MATERIALIZED (
    SELECT waiting.* FROM tenants t CROSS JOIN LATERAL (
        SELECT w.trigger_id, w.fire_at, row_number() OVER (ORDER BY w.fire_at) AS turn
        FROM graphwright.timers w
        WHERE w.lane = 'behind' AND w.tenant = t.tenant AND w.fire_at <= %(now)s
            AND w.slice = ANY(%(slices)s)
        ORDER BY w.fire_at LIMIT (
            SELECT greatest(1, 8 * %(limit)s / greatest(1, count(tenant))) FROM tenants
        )
    ) waiting
    ORDER BY turn, fire_at
), due AS MATERIALIZED (
    SELECT d.*, turns.turn FROM turns CROSS JOIN LATERAL (
        SELECT d.trigger_id, d.tenant, d.due_at, d.fire_at FROM graphwright.timers d
        WHERE d.trigger_id = turns.trigger_id AND d.lane = 'behind' AND d.fire_at <= %(now)s
        LIMIT 1 FOR UPDATE SKIP LOCKED
    ) d
    LIMIT %(limit)s
)
SELECT due.tenant, due.trigger_id::text, due.due_at, due.fire_at, t.*
FROM due LEFT JOIN LATERAL (
    SELECT t.graph_id::text, t.name, t.config::text FROM graphwright.triggers t
    WHERE t.tenant = due.tenant AND t.trigger_id = due.trigger_id LIMIT 1
) t ON true
ORDER BY due.turn, due.fire_at
"""

# The rows are there, and locked: an insert that conflicts finds each by its key, however many
# others there are.
MOVE: Final[LiteralString] = """
INSERT INTO graphwright.timers (trigger_id, tenant, due_at, fire_at, lane)
SELECT * FROM json_to_recordset(%(timers)s::json)
    AS m (trigger_id uuid, tenant text, due_at timestamptz, fire_at timestamptz, lane text)
ON CONFLICT (trigger_id) DO UPDATE SET
    due_at = excluded.due_at, fire_at = excluded.fire_at, lane = excluded.lane
"""

END: Final[LiteralString] = "DELETE FROM graphwright.timers WHERE trigger_id = ANY(%(ended)s)"

NEXT_FIRE: Final[LiteralString] = """
SELECT fire_at FROM graphwright.timers
WHERE lane = %(lane)s AND slice = ANY(%(slices)s)
ORDER BY fire_at LIMIT 1
"""

FAULT: Final[LiteralString] = """
UPDATE graphwright.triggers SET last_fault = %(fault)s, last_fault_at = %(at)s
WHERE tenant = %(tenant)s AND trigger_id = %(trigger_id)s
"""
