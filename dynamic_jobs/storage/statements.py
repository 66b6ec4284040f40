"""The SQL of the event writer. Dagster's tables have no schema before their names."""

from typing import Final, LiteralString

# For each statement PostgreSQL would weigh a plan made for its values against one made for any, and
# take the former each time: over the partitions of our tables planning costs more than the rest of
# a batch. What is looked up here is always a few rows by their key.
PLAN_ONCE: Final[LiteralString] = "SET plan_cache_mode = force_generic_plan"

# A process that stands still, or whose host is gone, keeps its locks on its runs for as long as its
# transaction lasts, and nobody could take them over.
NEVER_STAND_STILL: Final[LiteralString] = "SET idle_in_transaction_session_timeout = '10s'"

# A plan that was made on an empty table must not live on while it fills, which it would do until
# autovacuum first comes by: an index on the tenant alone looks as good then as the primary key.
PLAN_ANEW: Final[LiteralString] = "DISCARD PLANS"

TENANTS: Final[LiteralString] = """
SELECT run_id, value AS tenant FROM run_tags
WHERE run_id = ANY(%s) AND key = 'graphwright/tenant'
"""

# Rows are locked in one order by every writer, and event ids are drawn only afterwards: so a run's
# ids rise in the order of commit, and a reader that saw one has seen all before it.
LOCK: Final[LiteralString] = """
SELECT r.run_id::text, r.epoch, r.status, r.live, r.last_event_id, r.limited,
    r.notifies
FROM unnest(%s::text[], %s::uuid[]) AS mine (tenant, run_id)
JOIN graphwright.runs r ON r.tenant = mine.tenant AND r.run_id = mine.run_id
ORDER BY r.run_id
FOR NO KEY UPDATE OF r
"""

INSERT_EVENTS: Final[LiteralString] = """
INSERT INTO event_logs (
    run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition
)
SELECT * FROM unnest(
    %b::text[], %b::text[], %b::text[], %b::timestamp[], %b::text[], %b::text[], %b::text[]
)
RETURNING id, pg_current_xact_id()::text AS transaction
"""

# After a connection was cut during COMMIT: is it still under way? NULL is too old to tell.
TRANSACTION_STATUS: Final[LiteralString] = "SELECT pg_xact_status(%s::xid8) AS status"

# How many of these events are stored. After a crash a number of a transaction or an event may be
# given out again, but not to an event of the same run and time.
COUNT_EVENTS: Final[LiteralString] = """
SELECT count(*) AS stored
FROM unnest(%s::bigint[], %s::text[], %s::timestamp[]) AS mine (id, run_id, timestamp)
JOIN event_logs e
  ON e.id = mine.id AND e.run_id = mine.run_id AND e.timestamp = mine.timestamp
"""

INSERT_OUTPUTS: Final[LiteralString] = """
INSERT INTO graphwright.node_outputs (tenant, run_id, node, value)
SELECT * FROM unnest(%b::text[], %b::uuid[], %b::text[], %b::text[])
ON CONFLICT (tenant, run_id, node) DO UPDATE SET
    value = excluded.value, object_key = NULL, bytes = NULL
"""

INSERT_OBJECTS: Final[LiteralString] = """
INSERT INTO graphwright.node_outputs (tenant, run_id, node, object_key, bytes)
SELECT * FROM unnest(%s::text[], %s::uuid[], %s::text[], %s::text[], %s::bigint[])
ON CONFLICT (tenant, run_id, node) DO UPDATE SET
    value = NULL, object_key = excluded.object_key, bytes = excluded.bytes
"""

UPDATE_RUNS: Final[LiteralString] = """
UPDATE graphwright.runs r SET
    last_event_id = u.last_event_id,
    status = u.status,
    started_at = COALESCE(r.started_at, u.started_at),
    ended_at = COALESCE(u.ended_at, r.ended_at),
    outputs = COALESCE(u.outputs::json, r.outputs),
    error = COALESCE(u.error::json, r.error)
FROM unnest(
    %s::text[], %s::uuid[], %s::bigint[], %s::text[], %s::timestamptz[], %s::timestamptz[],
    %s::text[], %s::text[]
) AS u (tenant, run_id, last_event_id, status, started_at, ended_at, outputs, error)
WHERE r.tenant = u.tenant AND r.run_id = u.run_id
"""

# A run ends once, so its notices are made once.
INSERT_NOTICES: Final[LiteralString] = """
INSERT INTO graphwright.notices (tenant, run_id, name, lane)
SELECT * FROM unnest(%s::text[], %s::uuid[], %s::text[], %s::text[])
"""

# Not in the transaction: a commit with NOTIFY takes a lock of the whole instance.
WAKE_DISPATCHER: Final[LiteralString] = "SELECT pg_notify('graphwright_triggers', 'notices')"

# `run_body` also holds a status, which Dagster itself treats as less trustworthy than the column.
UPDATE_DAGSTER_RUNS: Final[LiteralString] = """
UPDATE runs r SET
    status = u.status,
    update_timestamp = u.at,
    start_time = COALESCE(u.start_time, r.start_time),
    end_time = COALESCE(u.end_time, r.end_time)
FROM unnest(%s::text[], %s::text[], %s::timestamp[], %s::float[], %s::float[])
    AS u (run_id, status, at, start_time, end_time)
WHERE r.run_id = u.run_id
"""

# The reason of a failure is a tag, in the row of tags and in the run's body alike.
RUN_BODY: Final[LiteralString] = "SELECT run_body FROM runs WHERE run_id = %s FOR NO KEY UPDATE"

FAILURE_REASON: Final[LiteralString] = """
WITH tagged AS (
    INSERT INTO run_tags (run_id, key, value)
    VALUES (%(run_id)s, 'dagster/failure_reason', %(reason)s)
)
UPDATE runs SET run_body = %(run_body)s WHERE run_id = %(run_id)s
"""

# Rows are taken in one order by every writer. `last_materialization` is a serialized
# `EventLogRecord`, put together here so that the event does not travel twice. The time is given
# with its zone: Dagster leaves it to the session to drop that, here and when it wipes an asset.
UPSERT_ASSET_KEYS: Final[LiteralString] = """
INSERT INTO asset_keys AS a (
    asset_key, last_materialization, last_run_id, last_materialization_timestamp
)
SELECT u.asset_key,
       '{"__class__": "EventLogRecord", "event_log_entry": ' || e.event
           || ', "storage_id": ' || e.id || '}',
       u.last_run_id, u.at
FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::timestamptz[])
    AS u (asset_key, event_id, last_run_id, at)
LEFT JOIN event_logs e ON e.id = u.event_id
ORDER BY u.asset_key COLLATE "C"
ON CONFLICT (asset_key) DO UPDATE SET
    last_materialization = COALESCE(excluded.last_materialization, a.last_materialization),
    last_run_id = COALESCE(excluded.last_run_id, a.last_run_id),
    last_materialization_timestamp =
        COALESCE(excluded.last_materialization_timestamp, a.last_materialization_timestamp)
"""

INSERT_ASSET_EVENT_TAGS: Final[LiteralString] = """
INSERT INTO asset_event_tags (event_id, asset_key, key, value, event_timestamp)
SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::timestamp[])
"""

INSERT_CHECKS: Final[LiteralString] = """
INSERT INTO asset_check_executions (
    asset_key, check_name, partition, run_id, execution_status, evaluation_event,
    evaluation_event_timestamp, evaluation_event_storage_id, materialization_event_storage_id
)
SELECT %(asset_key)s, %(check_name)s, p, %(run_id)s, %(status)s, %(event)s, %(at)s, %(event_id)s,
       %(materialization_id)s::bigint
FROM unnest(%(partitions)s::text[]) AS p
"""

# Into the row of the plan, where there is one.
EVALUATE_CHECK: Final[LiteralString] = """
WITH planned AS (
    UPDATE asset_check_executions SET
        execution_status = %(status)s,
        evaluation_event = %(event)s,
        evaluation_event_timestamp = %(at)s,
        evaluation_event_storage_id = %(event_id)s,
        materialization_event_storage_id = %(materialization_id)s::bigint
    WHERE asset_key = %(asset_key)s AND check_name = %(check_name)s AND run_id = %(run_id)s
      AND partition IS NOT DISTINCT FROM (%(partitions)s::text[])[1]
    RETURNING id
)
INSERT INTO asset_check_executions (
    asset_key, check_name, partition, run_id, execution_status, evaluation_event,
    evaluation_event_timestamp, evaluation_event_storage_id, materialization_event_storage_id
)
SELECT %(asset_key)s, %(check_name)s, (%(partitions)s::text[])[1], %(run_id)s, %(status)s,
       %(event)s, %(at)s, %(event_id)s, %(materialization_id)s::bigint
WHERE NOT EXISTS (SELECT FROM planned)
"""

# These two are bound by SQLAlchemy, hence the colons.
CURSOR_VALUES: Final[LiteralString] = "SELECT key, value FROM kvs WHERE key = ANY(:keys)"
STORE_SNAPSHOTS: Final[LiteralString] = """
WITH stored AS (
    INSERT INTO snapshots (snapshot_id, snapshot_body, snapshot_type)
    VALUES (:job_id, :job, 'PIPELINE'), (:plan_id, :plan, 'EXECUTION_PLAN')
    ON CONFLICT DO NOTHING
)
INSERT INTO kvs (key, value) VALUES (:key, :ids)
ON CONFLICT (key) DO UPDATE SET value = excluded.value
"""
