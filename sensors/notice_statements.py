"""SQL of notices: what ends of runs set off."""

from typing import Final, LiteralString

_DUE: Final[LiteralString] = """
    SELECT n.tenant, n.run_id, n.name FROM graphwright.notices n
    WHERE n.status = 'pending' AND n.lane = %(lane)s AND n.next_at <= now()
        AND n.slice = ANY(%(slices)s)
"""
_FIRST: Final[LiteralString] = """
    ORDER BY n.next_at, n.run_id, n.name LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
"""

_COLUMNS: Final[LiteralString] = """
    c.tenant, c.run_id::text, c.name AS entry, r.graph_version_id::text, g.name AS graph, v.version,
    r.status, r.ended_at, r.error
"""
# Laterals keep PostgreSQL from joining, for which it may read all runs.
_RUNS: Final[LiteralString] = """
LEFT JOIN LATERAL (
    SELECT * FROM graphwright.runs r WHERE r.tenant = c.tenant AND r.run_id = c.run_id LIMIT 1
) r ON true
LEFT JOIN LATERAL (
    SELECT g.name FROM graphwright.graphs g
    WHERE g.tenant = c.tenant AND g.graph_id = r.graph_id LIMIT 1
) g ON true
LEFT JOIN LATERAL (
    SELECT v.version FROM graphwright.graph_versions v
    WHERE v.tenant = c.tenant AND v.graph_version_id = r.graph_version_id LIMIT 1
) v ON true
"""

# A notice stays locked until what it starts is committed. What a run was given and what it gave may
# be large: such notices have a lane where nobody waits for them, and very large outputs stay out.
CLAIM: Final[LiteralString] = f"""
WITH c AS MATERIALIZED ({_DUE} {_FIRST})
SELECT {_COLUMNS}, r.trigger, s.large,
    CASE WHEN %(lane)s = 'costly' OR NOT s.large THEN r.params END AS params,
    CASE WHEN NOT s.large THEN r.outputs END AS outputs
FROM c {_RUNS} LEFT JOIN LATERAL (
    SELECT octet_length(r.params::text) + COALESCE(octet_length(r.outputs::text), 0)
        > %(most_bytes)s AS large
) s ON true
ORDER BY c.run_id, c.name
"""  # noqa: S608 - made of constants

# No lock outlasts this: the time by which it is tried again stands in for one, while it is called.
CLAIM_CALLS: Final[LiteralString] = f"""
WITH due AS MATERIALIZED ({_DUE} AND n.tenant <> ALL(%(full)s::text[]) {_FIRST}), c AS (
    UPDATE graphwright.notices n SET
        attempts = n.attempts + 1, next_at = now() + %(lease_seconds)s * interval '1 second'
    FROM due
    WHERE n.tenant = due.tenant AND n.run_id = due.run_id AND n.name = due.name
    RETURNING n.tenant, n.run_id, n.name, n.attempts
)
SELECT {_COLUMNS}, c.attempts FROM c {_RUNS}
"""  # noqa: S608 - made of constants

DOCUMENT: Final[LiteralString] = """
SELECT document FROM graphwright.graph_versions
WHERE tenant = %(tenant)s AND graph_version_id = %(graph_version_id)s
"""

GRAPHS: Final[LiteralString] = """
SELECT w.tenant, w.name, g.graph_id::text
FROM unnest(%(tenants)s::text[], %(names)s::text[]) AS w (tenant, name), LATERAL (
    SELECT g.graph_id FROM graphwright.graphs g
    WHERE g.tenant = w.tenant AND g.name = w.name AND g.deleted_at IS NULL LIMIT 1
) g
"""

DECIDE: Final[LiteralString] = """
UPDATE graphwright.notices n SET
    status = v.status, lane = v.lane, attempts = n.attempts + v.attempts,
    next_at = now() + v.delay_seconds * interval '1 second', started = v.started,
    reason = v.reason,
    ended_at = CASE WHEN v.status <> 'pending' THEN clock_timestamp() END
FROM json_to_recordset(%(verdicts)s::json) AS v (
    tenant text, run_id uuid, entry text, status text, lane text, attempts integer,
    delay_seconds float, started uuid, reason text
)
WHERE n.tenant = v.tenant AND n.run_id = v.run_id AND n.name = v.entry
"""

# An answer that comes after the next attempt has begun counts if it is a success.
ANSWERED: Final[LiteralString] = """
UPDATE graphwright.notices SET
    status = %(status)s, next_at = now() + %(delay_seconds)s * interval '1 second',
    reason = %(reason)s,
    ended_at = CASE WHEN %(status)s <> 'pending' THEN clock_timestamp() END
WHERE tenant = %(tenant)s AND run_id = %(run_id)s AND name = %(entry)s AND status = 'pending'
    AND (attempts = %(attempts)s OR %(status)s = 'delivered')
"""
