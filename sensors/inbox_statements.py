"""The statements of the inbox."""

from typing import Final, LiteralString

# Everything of a batch of calls. The rows come as one JSON text, in which headers and query are
# text again: read as JSON here, a \u0000 would be refused. Bodies come as one string of bytes, to
# be cut.
#
# A call with several keys is a repeated one as soon as one of them is known, and must then leave
# the others alone: they would name a delivery that is never made. With one key, the insert finds
# out by itself, also where another receiver has the same call in its hands: it waits for that to
# commit. A key that has expired may be taken again.
#
# Two receivers that get one content under two ids at the same moment can leave the second id with
# no delivery. Only who replays a call sends such a pair. Keys expire by this clock alone: those of
# receivers differ.
ACCEPT: Final[LiteralString] = """
WITH asked AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(calls)s::json) AS c (
        tenant text, delivery_id uuid, trigger_id uuid, graph_id uuid, received_at timestamptz,
        sender_id text, headers text, query text, "from" integer, bytes integer, verdict text,
        reason text, costly boolean
    )
), keys AS MATERIALIZED (
    SELECT k.*, now() + seconds * interval '1 second' AS expires_at
    FROM json_to_recordset(%(keys)s::json) AS k (
        tenant text, trigger_id uuid, key text, delivery_id uuid, seconds float, several boolean
    )
), known AS MATERIALIZED (
    SELECT k.delivery_id, max(d.delivery_id::text) AS first FROM keys k, LATERAL (
        SELECT delivery_id FROM graphwright.delivery_keys d
        WHERE d.tenant = k.tenant AND d.trigger_id = k.trigger_id AND d.key = k.key
            AND d.expires_at > now()
        LIMIT 1
    ) d
    WHERE k.several
    GROUP BY k.delivery_id
), taken AS (
    INSERT INTO graphwright.delivery_keys AS d (tenant, trigger_id, key, delivery_id, expires_at)
    SELECT tenant, trigger_id, key, delivery_id, expires_at FROM keys
    WHERE delivery_id NOT IN (SELECT delivery_id FROM known)
    ORDER BY tenant, trigger_id, key
    ON CONFLICT (tenant, trigger_id, key) DO UPDATE SET
        (delivery_id, expires_at) = (
            SELECT CASE WHEN d.expires_at > now() THEN d.delivery_id ELSE excluded.delivery_id END,
                CASE WHEN d.expires_at > now() THEN d.expires_at ELSE excluded.expires_at END
        )
    RETURNING d.tenant, d.trigger_id, d.key, d.delivery_id
), judged AS MATERIALIZED (
    SELECT a.*, COALESCE(known.first, raced.first) AS first FROM asked a
    LEFT JOIN known ON known.delivery_id = a.delivery_id
    LEFT JOIN (
        SELECT k.delivery_id, max(t.delivery_id::text) AS first
        FROM taken t JOIN keys k USING (tenant, trigger_id, key)
        WHERE t.delivery_id <> k.delivery_id
        GROUP BY k.delivery_id
    ) raced ON raced.delivery_id = a.delivery_id
), stored AS (
    INSERT INTO graphwright.deliveries (
        tenant, delivery_id, trigger_id, graph_id, received_at, sender_id, headers, query, body,
        verdict, reason, decided_at
    )
    SELECT tenant, delivery_id, trigger_id, graph_id, received_at, sender_id, headers::json,
        query::json, substring(%(bodies)b::bytea FROM "from" FOR bytes),
        verdict, reason, CASE WHEN verdict <> 'pending' THEN received_at END
    FROM judged WHERE first IS NULL
), queued AS (
    INSERT INTO graphwright.delivery_queue (delivery_id, tenant, costly)
    SELECT delivery_id, tenant, costly FROM judged WHERE first IS NULL AND verdict = 'pending'
    RETURNING costly
), told AS (
    SELECT pg_notify(
        'graphwright_triggers', CASE WHEN costly THEN 'costly deliveries' ELSE 'deliveries' END
    ) FROM (SELECT DISTINCT costly FROM queued) q
)
SELECT j.delivery_id::text, j.first, (SELECT count(*) FROM told) AS told FROM judged j
"""

ADDRESSED: Final[LiteralString] = """
SELECT t.tenant, t.trigger_id::text, t.graph_id::text, t.config, t.enabled
FROM graphwright.webhook_addresses a, LATERAL (
    SELECT * FROM graphwright.triggers t
    WHERE t.tenant = a.tenant AND t.trigger_id = a.trigger_id LIMIT 1
) t
WHERE a.address = %(address)s
"""
