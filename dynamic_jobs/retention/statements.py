"""The SQL of retention. Dagster's tables have no schema before their names.

What is removed is found by its key, whatever the statistics of a table that changes so much may
say; :data:`BY_INDEX` sees to that.
"""

from typing import Final, LiteralString

# One row for each walk: who has it locked may remove.
TURN: Final[LiteralString] = """
SELECT tenant, sort_id::text FROM graphwright.retention
WHERE walk = %(walk)s AND next_at <= now()
FOR UPDATE SKIP LOCKED
"""

LOCK: Final[LiteralString] = "SELECT FROM graphwright.retention WHERE walk = %(walk)s FOR UPDATE"

# The pause begins when the work has ended, not with the transaction.
ADVANCE: Final[LiteralString] = """
UPDATE graphwright.retention SET tenant = %(tenant)s, sort_id = %(sort_id)s::uuid,
    next_at = clock_timestamp() + %(pause)s * interval '1 second'
WHERE walk = %(walk)s
"""

# Joined by hash or merge, a whole index would be read for a few of its rows. Compiling a plan would
# take longer than it does.
BY_INDEX: Final[LiteralString] = """
SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;
SET LOCAL jit = off
"""


def visiting(table: LiteralString, key: LiteralString) -> LiteralString:
    """From tenant to tenant that has rows in a table, by one look into its index each.

    The ``key`` has the time at which a row was made in its first 48 bits; it ends no earlier.
    """
    return f"""
WITH RECURSIVE visited (place, tenant, oldest) AS (
    (
        SELECT 1, tenant, {key} FROM {table}
        WHERE (tenant, {key}) > (%(tenant)s, %(sort_id)s::uuid)
        ORDER BY tenant, {key} LIMIT 1
    )
    UNION ALL
    SELECT v.place + 1, next.tenant, next.{key}
    FROM visited v, LATERAL (
        SELECT r.tenant, r.{key} FROM {table} r
        WHERE r.tenant > v.tenant
        ORDER BY r.tenant, r.{key} LIMIT 1
    ) next
    WHERE v.place < %(tenants)s
), policies AS MATERIALIZED (
    SELECT v.*, COALESCE((
        SELECT p.retention_days FROM graphwright.tenant_policies p WHERE p.tenant = v.tenant
    ), %(days)s::integer) AS days
    FROM visited v
), cutoffs AS MATERIALIZED (
    SELECT p.*, CASE WHEN p.days IS NOT NULL THEN now() - GREATEST(
        LEAST(p.days, %(most_days)s) * interval '1 day',
        LEAST(%(least_hours)s, %(most_days)s * 24) * interval '1 hour'
    ) END AS cutoff
    FROM policies p
)
SELECT tenant, oldest::text, cutoff,
    (lpad(to_hex((extract(epoch FROM cutoff) * 1000)::bigint), 12, '0') || repeat('0', 20))
        ::uuid::text AS bound
FROM cutoffs ORDER BY place
"""  # noqa: S608  (literals only)


VISIT_RUNS: Final = visiting("graphwright.runs", "sort_id")

# In the order of the walk, so that what comes back first is what it has got to.
OLD_RUNS: Final[LiteralString] = """
SELECT old.tenant, old.run_id::text, old.sort_id::text,
    COALESCE(old.ended_at < v.cutoff, false) AS due
FROM unnest(%(tenants)s::text[], %(oldest)s::uuid[], %(bounds)s::uuid[], %(cutoffs)s::timestamptz[])
    WITH ORDINALITY AS v (tenant, oldest, bound, cutoff, place), LATERAL (
    SELECT r.tenant, r.run_id, r.sort_id, r.ended_at FROM graphwright.runs r
    WHERE r.tenant = v.tenant AND r.sort_id >= v.oldest AND r.sort_id < v.bound
    ORDER BY r.sort_id LIMIT %(limit)s
) old
ORDER BY v.place, old.sort_id
LIMIT %(limit)s
"""

LOCK_RUNS: Final[LiteralString] = """
SELECT r.run_id::text
FROM unnest(%(tenants)s::text[], %(run_ids)s::uuid[]) AS mine (tenant, run_id)
JOIN graphwright.runs r ON r.tenant = mine.tenant AND r.run_id = mine.run_id
WHERE r.ended_at IS NOT NULL
FOR UPDATE OF r SKIP LOCKED
"""

# A re-run takes over what its parent made when it starts. In a statement of its own, after the
# parents are locked: it sees every re-run that found them there.
REPEATED: Final[LiteralString] = """
SELECT r.parent_run_id::text AS run_id
FROM unnest(%(tenants)s::text[], %(run_ids)s::uuid[]) AS mine (tenant, run_id)
JOIN graphwright.runs r ON r.tenant = mine.tenant AND r.parent_run_id = mine.run_id
WHERE r.parent_run_id IS NOT NULL AND r.ended_at IS NULL
"""

COUNT_EVENTS: Final[LiteralString] = """
SELECT run_id, count(*) AS events FROM event_logs WHERE run_id = ANY(%(run_ids)s::text[])
GROUP BY run_id
"""

# What Dagster's own `delete_run` and `delete_events` remove. What an asset was last made by stays
# with the asset.
DELETE_EVENTS: Final[LiteralString] = """
WITH gone AS (
    DELETE FROM event_logs WHERE run_id = ANY(%(run_ids)s::text[]) RETURNING id, asset_key
), untagged AS (
    DELETE FROM asset_event_tags
    WHERE event_id = ANY(ARRAY(SELECT id FROM gone WHERE asset_key IS NOT NULL))
)
SELECT count(*) AS events FROM gone
"""

DELETE_TAGS: Final[LiteralString] = "DELETE FROM run_tags WHERE run_id = ANY(%(run_ids)s::text[])"

DELETE_DAGSTER_RUNS: Final[LiteralString] = (
    "DELETE FROM runs WHERE run_id = ANY(%(run_ids)s::text[])"
)

# Waits for re-runs that are just taking outputs over: what they name is seen afterwards.
DELETE_OUTPUTS: Final[LiteralString] = """
WITH gone AS (
    DELETE FROM graphwright.node_outputs o
    USING unnest(%(tenants)s::text[], %(run_ids)s::uuid[]) AS mine (tenant, run_id)
    WHERE o.tenant = mine.tenant AND o.run_id = mine.run_id
    RETURNING o.tenant, o.object_key
), left_over AS (
    INSERT INTO graphwright.left_objects (tenant, object_key)
    SELECT DISTINCT tenant, object_key FROM gone WHERE object_key IS NOT NULL
    ORDER BY tenant, object_key
    ON CONFLICT (tenant, object_key) DO UPDATE SET left_at = excluded.left_at
)
SELECT count(*) AS outputs FROM gone
"""

DELETE_RUNS: Final[LiteralString] = """
DELETE FROM graphwright.runs r
USING unnest(%(tenants)s::text[], %(run_ids)s::uuid[]) AS mine (tenant, run_id)
WHERE r.tenant = mine.tenant AND r.run_id = mine.run_id
RETURNING r.tenant, r.run_id::text, r.epoch > 1 OR r.status <> 'succeeded' AS cut_off,
    r.isolation <> 'warm' AS isolated
"""

# Those too that nobody has come to yet: what they would tell of is gone.
DELETE_NOTICES: Final[LiteralString] = """
DELETE FROM graphwright.notices n
USING unnest(%(tenants)s::text[], %(run_ids)s::uuid[]) AS mine (tenant, run_id)
WHERE n.tenant = mine.tenant AND n.run_id = mine.run_id
"""

LEAVE_FOLDERS: Final[LiteralString] = """
INSERT INTO graphwright.left_objects (tenant, object_key)
SELECT * FROM unnest(%(tenants)s::text[], %(folders)s::text[])
ON CONFLICT DO NOTHING
"""

DELETE_KEYS: Final[LiteralString] = """
DELETE FROM graphwright.idempotency_keys k
USING (
    SELECT tenant, key FROM graphwright.idempotency_keys
    WHERE expires_at <= now() ORDER BY expires_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
) expired
WHERE k.tenant = expired.tenant AND k.key = expired.key
"""

DELETE_DAYS: Final[LiteralString] = """
DELETE FROM graphwright.tenant_days
WHERE tenant = ANY(%(tenants)s::text[])
    AND day < (now() AT TIME ZONE 'UTC')::date - %(days)s::integer
"""

DELETE_RECENT: Final[LiteralString] = """
DELETE FROM graphwright.recent_graphs WHERE graph_id IN (
    SELECT graph_id FROM graphwright.recent_graphs
    WHERE used_at < (
        SELECT used_at FROM graphwright.recent_graphs
        ORDER BY used_at DESC OFFSET %(kept)s - 1 LIMIT 1
    )
    ORDER BY used_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
"""

LEFT_OBJECTS: Final[LiteralString] = """
SELECT tenant, object_key FROM graphwright.left_objects
WHERE left_at <= now() - %(seconds)s * interval '1 second' LIMIT %(limit)s
FOR UPDATE SKIP LOCKED
"""

# The folder goes, and what was found in it comes.
LEAVE_FOUND: Final[LiteralString] = """
WITH listed AS (
    DELETE FROM graphwright.left_objects WHERE tenant = %(tenant)s AND object_key = %(folder)s
    RETURNING tenant, left_at
)
INSERT INTO graphwright.left_objects (tenant, object_key, left_at)
SELECT listed.tenant, found.key, listed.left_at FROM listed, unnest(%(keys)s::text[]) AS found (key)
ON CONFLICT DO NOTHING
"""

# Some other run still has them; its own removal will leave them here again.
KEEP_OBJECTS: Final[LiteralString] = """
DELETE FROM graphwright.left_objects l
USING unnest(%(tenants)s::text[], %(keys)s::text[]) AS mine (tenant, object_key)
WHERE l.tenant = mine.tenant AND l.object_key = mine.object_key AND EXISTS (
    SELECT FROM graphwright.node_outputs o
    WHERE o.tenant = mine.tenant AND o.object_key = mine.object_key
)
RETURNING l.object_key
"""

FORGET_OBJECTS: Final[LiteralString] = """
DELETE FROM graphwright.left_objects l
USING unnest(%(tenants)s::text[], %(keys)s::text[]) AS mine (tenant, object_key)
WHERE l.tenant = mine.tenant AND l.object_key = mine.object_key
"""
