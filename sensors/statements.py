"""SQL of the dispatching of deliveries."""

from typing import Final, LiteralString

# Leaves the queue and is looked at in one statement; a rollback puts it back. Laterals keep
# PostgreSQL from joining, for which it may read all deliveries.
CLAIM: Final[LiteralString] = """
WITH picked AS MATERIALIZED (
    SELECT q.delivery_id FROM graphwright.delivery_queue q
    WHERE q.costly = %(costly)s AND q.not_before <= now() AND q.slice = ANY(%(slices)s)
    ORDER BY q.not_before, q.delivery_id LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), claimed AS (
    DELETE FROM graphwright.delivery_queue q USING picked WHERE q.delivery_id = picked.delivery_id
    RETURNING q.delivery_id, q.tenant
)
SELECT d.tenant, d.delivery_id::text, d.trigger_id::text, d.graph_id::text, d.headers, d.query,
    d.body, t.config::text, COALESCE(t.name, '') AS name
FROM claimed c, LATERAL (
    SELECT * FROM graphwright.deliveries d
    WHERE d.tenant = c.tenant AND d.delivery_id = c.delivery_id LIMIT 1
) d LEFT JOIN LATERAL (
    SELECT t.name, t.config FROM graphwright.triggers t
    WHERE t.tenant = d.tenant AND t.trigger_id = d.trigger_id LIMIT 1
) t ON true
ORDER BY c.delivery_id
"""

DECIDE: Final[LiteralString] = """
UPDATE graphwright.deliveries d SET
    verdict = v.verdict, reason = v.reason, run_id = v.run_id, decided_at = clock_timestamp()
FROM unnest(
    %(tenants)s::text[], %(delivery_ids)s::uuid[], %(verdicts)s::text[], %(reasons)s::text[],
    %(run_ids)s::uuid[]
) AS v (tenant, delivery_id, verdict, reason, run_id)
WHERE d.tenant = v.tenant AND d.delivery_id = v.delivery_id
"""

PUT_BACK: Final[LiteralString] = """
WITH queued AS (
    INSERT INTO graphwright.delivery_queue (delivery_id, tenant, not_before, costly)
    SELECT delivery_id, tenant, now() + %(delay_seconds)s * interval '1 second', %(costly)s
    FROM unnest(%(tenants)s::text[], %(delivery_ids)s::uuid[]) AS back (tenant, delivery_id)
)
SELECT pg_notify('graphwright_triggers', 'costly deliveries') WHERE %(costly)s
"""

# Else they would be claimed, judged and put back all the time, ahead of others' newer ones.
PUT_OFF: Final[LiteralString] = """
UPDATE graphwright.delivery_queue q
SET not_before = now() + %(delay_seconds)s * (1 + random()) * interval '1 second'
FROM (
    SELECT delivery_id FROM graphwright.delivery_queue
    WHERE tenant = ANY(%(tenants)s) AND not_before <= now()
    FOR UPDATE SKIP LOCKED
) waiting
WHERE q.delivery_id = waiting.delivery_id
"""
