"""The SQL of the event writer. Dagster's tables are ``runs``, ``run_tags`` and ``event_logs``."""

from typing import Final, LiteralString

TENANTS: Final[LiteralString] = """
SELECT run_id, value AS tenant FROM run_tags
WHERE run_id = ANY(%s) AND key = 'graphwright/tenant'
"""

# Rows are locked in one order by every writer, and event ids are drawn only afterwards: so a run's
# ids rise in the order of commit, and a reader that saw one has seen all before it.
LOCK: Final[LiteralString] = """
SELECT r.run_id::text, r.epoch, r.status, r.live, r.last_event_id
FROM unnest(%s::text[], %s::uuid[]) AS mine (tenant, run_id)
JOIN graphwright.runs r ON r.tenant = mine.tenant AND r.run_id = mine.run_id
ORDER BY r.run_id
FOR NO KEY UPDATE OF r
"""

INSERT_EVENTS: Final[LiteralString] = """
INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, step_key)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::timestamp[], %s::text[])
RETURNING id, pg_current_xact_id()::text AS transaction
"""

# After a connection was cut during COMMIT: did it go through? NULL is too old to tell.
TRANSACTION_STATUS: Final[LiteralString] = "SELECT pg_xact_status(%s::xid8) AS status"

INSERT_OUTPUTS: Final[LiteralString] = """
INSERT INTO graphwright.node_outputs (tenant, run_id, node, value)
SELECT * FROM unnest(%s::text[], %s::uuid[], %s::text[], %s::text[])
ON CONFLICT (tenant, run_id, node) DO UPDATE SET value = excluded.value
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
