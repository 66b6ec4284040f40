"""Creating runs, any number of them in one statement: Dagster's runs with their tags and ENQUEUED
events, our rows, the queue's, and a wake-up where a worker has declared itself idle.

Everything of a run exists after the commit, or nothing does.
"""

from typing import Final, LiteralString

from dynamic_jobs.queueing.waking import SOMEBODY_IDLES

# One JSON text for all rows: psycopg takes ten times as long to write as many arrays. `params` and
# `trigger` are JSON inside of it as text, since PostgreSQL would read their \u0000, and refuse it.
ASKED: Final[LiteralString] = """asked AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(runs)s::json) AS g (
        tenant text, run_id text, sort_id uuid, graph_id uuid, graph_version_id uuid,
        parent_run_id uuid, trigger text, params text, author text, priority integer,
        not_before timestamptz, live boolean, created_at timestamptz,
        graph text, published integer, notifies json,
        slot text, slot_limit integer, rejects boolean, idempotency_key text, request text,
        job_name text, run_body text, job_snapshot_id text, tags json, event text,
        traceparent text, isolation text
    )
)"""

# Why a run is not made, the first reason that holds. A run that asks for the published version is
# made only where that still is the published one. Quotas count what is committed, so triggers that
# are accepted at the same moment can together pass one. Laterals keep PostgreSQL from joining, for
# which it may read all graphs.
#
# A run that repeats another keeps that from being removed before it has committed.
JUDGED: Final[LiteralString] = """parents AS MATERIALIZED (
    SELECT parent.run_id FROM asked a, LATERAL (
        SELECT r.run_id FROM graphwright.runs r
        WHERE r.tenant = a.tenant AND r.run_id = a.parent_run_id FOR KEY SHARE
    ) parent
    WHERE a.parent_run_id IS NOT NULL
), owners AS MATERIALIZED (
    SELECT p.*, (
        SELECT count(*) FROM (
            SELECT FROM graphwright.run_queue q
            WHERE p.max_queued IS NOT NULL AND q.tenant = p.tenant
                AND q.state = ANY('{ready,delayed,blocked,limited,held,solo,placed}')
            LIMIT p.max_queued
        ) waiting
    ) AS queued, (
        SELECT d.runs FROM graphwright.tenant_days d
        WHERE p.max_runs_per_day IS NOT NULL AND d.tenant = p.tenant
            AND d.day = (now() AT TIME ZONE 'UTC')::date
    ) AS runs_today
    FROM graphwright.tenant_policies p
    WHERE p.tenant IN (SELECT tenant FROM asked)
), judged AS MATERIALIZED (
    SELECT a.*, g.paused, o.max_running IS NOT NULL AS limited,
        o.max_runs_per_day IS NOT NULL AS counted,
        CASE
            WHEN a.parent_run_id IS NOT NULL
                AND a.parent_run_id NOT IN (SELECT run_id FROM parents) THEN 'parent_gone'
            WHEN a.published IS NOT NULL
                AND (g.version, g.name) IS DISTINCT FROM (a.published, a.graph) THEN 'unpublished'
            WHEN COALESCE(o.queued, 0) + row_number() OVER mine > o.max_queued THEN 'queue_full'
            WHEN COALESCE(o.runs_today, 0) + row_number() OVER mine > o.max_runs_per_day
                THEN 'runs_per_day'
            WHEN a.rejects AND row_number() OVER (PARTITION BY a.tenant, a.slot) + (
                SELECT count(*) FROM graphwright.run_slots s
                JOIN graphwright.runs r ON r.tenant = s.tenant AND r.run_id = s.run_id
                WHERE s.tenant = a.tenant AND s.slot = a.slot AND r.ended_at IS NULL
            ) > a.slot_limit THEN 'busy'
        END AS refused
    FROM asked a
    LEFT JOIN owners o ON o.tenant = a.tenant
    LEFT JOIN LATERAL (
        SELECT version, name, paused FROM graphwright.graphs p
        WHERE p.tenant = a.tenant AND p.graph_id = a.graph_id LIMIT 1
    ) g ON true
    WINDOW mine AS (PARTITION BY a.tenant)
)"""

INSERT_OURS: Final[LiteralString] = """
INSERT INTO graphwright.runs (
    tenant, run_id, sort_id, graph_id, graph_version_id, parent_run_id, trigger, params, status,
    author, priority, not_before, live, created_at, last_event_id, slot, slot_limit, limited,
    notifies, traceparent, isolation
) SELECT
    tenant, run_id::uuid, sort_id, graph_id, graph_version_id, parent_run_id, trigger::json,
    params::json, 'queued', author, priority, not_before, live, created_at, queued.id,
    slot, slot_limit, slot IS NOT NULL OR limited, notifies, traceparent, isolation
FROM given JOIN queued USING (run_id)
"""

# What a run waits for first; run_queue in the schema says what else.
STATE: Final[LiteralString] = """
    CASE
        WHEN given.paused THEN 'held'
        WHEN given.not_before > now() THEN 'delayed'
        WHEN given.slot IS NOT NULL THEN 'blocked'
        WHEN given.limited THEN 'limited'
        ELSE 'ready'
    END
"""

ENQUEUE: Final[LiteralString] = f"""
INSERT INTO graphwright.run_queue (
    run_id, tenant, graph_id, state, priority, not_before, slot, slot_limit, limited
)
SELECT run_id::uuid, tenant, graph_id, {STATE}, priority, COALESCE(not_before, now()), slot,
    slot_limit, COALESCE(limited, false)
FROM given
"""  # noqa: S608 - made of constants

# Not where it was touched just now, and not where somebody else is touching or listing it: runs of
# many graphs are in one transaction, which must not wait for a lock on one of them.
TOUCH_GRAPHS: Final[LiteralString] = """
used AS MATERIALIZED (
    SELECT g.graph_id, g.tenant, r.used_at
    FROM (SELECT DISTINCT graph_id, tenant FROM given) g LEFT JOIN LATERAL (
        SELECT used_at FROM graphwright.recent_graphs r WHERE r.graph_id = g.graph_id LIMIT 1
    ) r ON true
), touched AS (
    UPDATE graphwright.recent_graphs SET used_at = now()
    WHERE graph_id = ANY(ARRAY(
        SELECT old.graph_id FROM used, LATERAL (
            SELECT r.graph_id FROM graphwright.recent_graphs r WHERE r.graph_id = used.graph_id
            FOR UPDATE SKIP LOCKED
        ) old
        WHERE used.used_at < now() - interval '10 seconds'
    ))
), listed AS (
    INSERT INTO graphwright.recent_graphs (graph_id, tenant, used_at)
    SELECT graph_id, tenant, now() FROM used
    WHERE used_at IS NULL
        AND pg_try_advisory_xact_lock(hashtextextended('graphwright/recent/' || graph_id, 0))
    ORDER BY graph_id
    ON CONFLICT (graph_id) DO NOTHING
)"""

CREATE: Final[LiteralString] = f"""
WITH {ASKED}, {JUDGED}, keyed AS (
    INSERT INTO graphwright.idempotency_keys (tenant, key, run_id, request, expires_at)
    SELECT tenant, idempotency_key, run_id::uuid, request,
           created_at + %(key_hours)s * interval '1 hour'
    FROM judged WHERE refused IS NULL AND idempotency_key IS NOT NULL
    ORDER BY tenant, idempotency_key
    ON CONFLICT DO NOTHING
    RETURNING run_id
), given AS MATERIALIZED (
    SELECT * FROM judged
    WHERE refused IS NULL
        AND (idempotency_key IS NULL OR run_id::uuid IN (SELECT run_id FROM keyed))
), counted AS (
    INSERT INTO graphwright.tenant_days AS d (tenant, day, runs)
    SELECT tenant, (now() AT TIME ZONE 'UTC')::date, count(*) FROM given
    WHERE counted GROUP BY tenant ORDER BY tenant
    ON CONFLICT (tenant, day) DO UPDATE SET runs = d.runs + excluded.runs
), dagster AS (
    INSERT INTO runs (run_id, pipeline_name, status, run_body, snapshot_id, create_timestamp,
                      update_timestamp)
    SELECT run_id, job_name, 'QUEUED', run_body, job_snapshot_id, created_at AT TIME ZONE 'UTC',
           created_at AT TIME ZONE 'UTC'
    FROM given
), tagged AS (
    INSERT INTO run_tags (run_id, key, value)
    SELECT given.run_id, t.key, t.value FROM given, json_each_text(given.tags) AS t (key, value)
), queued AS (
    INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp)
    SELECT run_id, event, 'PIPELINE_ENQUEUED', created_at AT TIME ZONE 'UTC' FROM given
    RETURNING id, run_id
), ours AS ({INSERT_OURS}), enqueued AS ({ENQUEUE}), {TOUCH_GRAPHS}, woken AS (
    SELECT pg_notify('graphwright_queue', (
        SELECT CASE WHEN bool_or(not_before > now()) THEN 'delayed' ELSE '' END FROM given
    ))
    WHERE {SOMEBODY_IDLES} AND EXISTS (SELECT FROM given)
)
SELECT j.run_id,
    COALESCE(j.refused, CASE WHEN g.run_id IS NULL THEN 'key_used' END) AS refused,
    COALESCE(j.limited, false) AS limited,
    (SELECT count(*) FROM woken) AS woken
FROM judged j LEFT JOIN given g ON g.run_id = j.run_id
"""  # noqa: S608 - made of constants
