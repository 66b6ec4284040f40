"""The SQL of what goes by its age alone: deliveries with their keys, and backfills."""

from typing import Final, LiteralString

from dynamic_jobs.retention.statements import visiting

VISIT_DELIVERIES: Final = visiting("graphwright.deliveries", "delivery_id")
VISIT_BACKFILLS: Final = visiting("graphwright.backfills", "backfill_id")

# The size of a large body is known without reading it.
OLD_DELIVERIES: Final[LiteralString] = """
SELECT old.tenant, old.delivery_id::text AS sort_id, old.bytes,
    COALESCE(old.decided_at < v.cutoff, false) AS due
FROM unnest(%(tenants)s::text[], %(oldest)s::uuid[], %(bounds)s::uuid[], %(cutoffs)s::timestamptz[])
    WITH ORDINALITY AS v (tenant, oldest, bound, cutoff, place), LATERAL (
    SELECT d.tenant, d.delivery_id, d.decided_at, COALESCE(octet_length(d.body), 0) AS bytes
    FROM graphwright.deliveries d
    WHERE d.tenant = v.tenant AND d.delivery_id >= v.oldest AND d.delivery_id < v.bound
    ORDER BY d.delivery_id LIMIT %(limit)s
) old
ORDER BY v.place, old.delivery_id
LIMIT %(limit)s
"""

DELETE_DELIVERIES: Final[LiteralString] = """
DELETE FROM graphwright.deliveries d
USING unnest(%(tenants)s::text[], %(ids)s::uuid[]) AS mine (tenant, delivery_id)
WHERE d.tenant = mine.tenant AND d.delivery_id = mine.delivery_id AND d.verdict <> 'pending'
"""

OLD_BACKFILLS: Final[LiteralString] = """
SELECT old.tenant, old.backfill_id::text AS sort_id,
    COALESCE(old.ended_at < v.cutoff, false) AS due
FROM unnest(%(tenants)s::text[], %(oldest)s::uuid[], %(bounds)s::uuid[], %(cutoffs)s::timestamptz[])
    WITH ORDINALITY AS v (tenant, oldest, bound, cutoff, place), LATERAL (
    SELECT b.tenant, b.backfill_id, b.ended_at FROM graphwright.backfills b
    WHERE b.tenant = v.tenant AND b.backfill_id >= v.oldest AND b.backfill_id < v.bound
    ORDER BY b.backfill_id LIMIT %(limit)s
) old
ORDER BY v.place, old.backfill_id
LIMIT %(limit)s
"""

DELETE_BACKFILLS: Final[LiteralString] = """
DELETE FROM graphwright.backfills b
USING unnest(%(tenants)s::text[], %(ids)s::uuid[]) AS mine (tenant, backfill_id)
WHERE b.tenant = mine.tenant AND b.backfill_id = mine.backfill_id
"""

# Anybody can send such calls, so they are not kept as long as others.
DELETE_REFUSED: Final[LiteralString] = """
DELETE FROM graphwright.deliveries d
USING (
    SELECT tenant, delivery_id FROM graphwright.deliveries
    WHERE verdict = 'refused' AND received_at < now() - %(days)s * interval '1 day'
    ORDER BY received_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
) refused
WHERE d.tenant = refused.tenant AND d.delivery_id = refused.delivery_id
"""

DELETE_DELIVERY_KEYS: Final[LiteralString] = """
DELETE FROM graphwright.delivery_keys k
USING (
    SELECT tenant, trigger_id, key FROM graphwright.delivery_keys
    WHERE expires_at <= now() ORDER BY expires_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
) expired
WHERE k.tenant = expired.tenant AND k.trigger_id = expired.trigger_id AND k.key = expired.key
"""
