"""The SQL of placing runs. Rows of the queue are locked before those of runs, as by a claim."""

from typing import Final, LiteralString

# What holds for the tenant, and what there is of the run's last attempt, if it had one.
BEFORE: Final[LiteralString] = """
SELECT policy.isolations, policy.placement AS policy, last.isolation, last.attempt, last.location,
    last.removed, last.failures, last.unexplained
FROM graphwright.tenant_policies policy
LEFT JOIN graphwright.placements last
    ON last.tenant = policy.tenant AND last.run_id = %(run_id)s::uuid
WHERE policy.tenant = %(tenant)s
"""

# Nothing of the run is under way while it is being placed: should its worker be lost, it is not.
BEGIN: Final[LiteralString] = """
WITH mine AS (
    UPDATE graphwright.runs SET
        status = CASE WHEN status = 'running' THEN 'queued' ELSE status END
    WHERE tenant = %(tenant)s AND run_id = %(run_id)s AND epoch = %(epoch)s
        AND status IN ('queued', 'running') AND NOT pausing
    RETURNING tenant, run_id, worker, isolation
)
INSERT INTO graphwright.placements AS p (tenant, run_id, isolation, attempt, location, worker)
SELECT tenant, run_id, isolation, %(attempt)s, %(location)s, worker FROM mine
ON CONFLICT (run_id) DO UPDATE SET
    isolation = excluded.isolation, attempt = excluded.attempt, location = excluded.location,
    worker = excluded.worker, placed_at = now(), look_at = now(), removed = false
WHERE p.tenant = excluded.tenant
RETURNING attempt
"""

# From now on the run is for the process that was started for it, whose time to claim it begins. Not
# where its owner wants something else of it meanwhile.
HAND_OVER: Final[LiteralString] = """
WITH mine AS (
    UPDATE graphwright.runs SET worker = NULL, epoch = epoch + 1, lost = false,
        status = CASE WHEN status = 'running' THEN 'queued' ELSE status END
    WHERE tenant = %(tenant)s AND run_id = %(run_id)s AND epoch = %(epoch)s
        AND status IN ('queued', 'running') AND NOT pausing
    RETURNING tenant, run_id, graph_id, priority
), queued AS (
    INSERT INTO graphwright.run_queue (
        tenant, run_id, graph_id, priority, state, not_before, waited, admitted
    )
    SELECT tenant, run_id, graph_id, priority, %(state)s,
        now() + %(delay)s * interval '1 second', %(waited)s, true
    FROM mine
), taken AS (
    UPDATE graphwright.placements p SET failures = 0, unexplained = 0, placed_at = now() FROM mine
    WHERE p.run_id = mine.run_id AND p.tenant = mine.tenant
)
SELECT run_id FROM mine
"""

# The first attempt may not even have begun.
FAILED: Final[LiteralString] = """
INSERT INTO graphwright.placements AS p (
    tenant, run_id, isolation, attempt, location, removed, failures, unexplained, reason
)
SELECT tenant, run_id, isolation, 0, '', true, 1, %(unexplained)s, %(reason)s
FROM graphwright.runs
WHERE tenant = %(tenant)s AND run_id = %(run_id)s AND epoch = %(epoch)s
ON CONFLICT (run_id) DO UPDATE SET failures = p.failures + 1,
    unexplained = p.unexplained + excluded.unexplained, reason = excluded.reason
WHERE p.tenant = excluded.tenant
"""

REASON: Final[LiteralString] = """
SELECT isolation, attempt, location, removed, reason FROM graphwright.placements
WHERE tenant = %(tenant)s AND run_id = %(run_id)s
"""

# A process may be there before its run was handed over. The worker that places it holds it then.
BEING_PLACED: Final[LiteralString] = """
SELECT FROM graphwright.placements p
JOIN graphwright.runs r ON r.tenant = p.tenant AND r.run_id = p.run_id
WHERE p.run_id = %s AND r.worker = p.worker AND r.ended_at IS NULL
"""

# Those that there is something to do about: nobody has claimed them yet, or they are over, for now
# or for ever. One that is ready again is for the worker that will claim it. Page by page, and those
# last that were put off.
WATCHED: Final[LiteralString] = """
SELECT p.tenant, p.run_id::text, p.isolation, p.attempt, p.location, p.removed,
    extract(epoch FROM now() - p.placed_at)::float AS age, d.pipeline_name AS job_name,
    CASE
        WHEN r.run_id IS NULL OR r.status = 'cancelled' THEN 'over'
        WHEN r.ended_at IS NOT NULL THEN 'ended'
        WHEN q.state = 'placed' THEN 'placed'
        ELSE 'left'
    END AS state,
    extract(epoch FROM now() - r.ended_at)::float AS ended_for, p.look_at
FROM graphwright.placements p
LEFT JOIN graphwright.runs r ON r.tenant = p.tenant AND r.run_id = p.run_id
LEFT JOIN graphwright.run_queue q ON q.run_id = p.run_id
LEFT JOIN runs d ON d.run_id = p.run_id::text
WHERE p.look_at <= now() AND (p.look_at, p.run_id) > (%(look_at)s, %(run_id)s::uuid) AND (
    r.run_id IS NULL OR r.ended_at IS NOT NULL OR q.state = 'placed'
    OR NOT p.removed AND r.worker IS NULL AND (q.state IS NULL OR q.state = 'delayed')
)
ORDER BY p.look_at, p.run_id
LIMIT %(limit)s
"""

# A platform that is away says nothing of how long something has taken.
PUT_OFF: Final[LiteralString] = """
UPDATE graphwright.placements SET look_at = now() + %(seconds)s * interval '1 second',
    placed_at = CASE WHEN %(away)s THEN now() ELSE placed_at END
WHERE run_id = %(run_id)s AND tenant = %(tenant)s AND attempt = %(attempt)s
"""

# A strike, as for a run that is lost with its worker. Not where it was placed anew meanwhile.
TAKE_BACK: Final[LiteralString] = """
WITH back AS (
    UPDATE graphwright.run_queue q SET state = 'delayed',
        not_before = now() + least(60, 2 ^ (1 + (
            SELECT r.strikes FROM graphwright.runs r
            WHERE r.tenant = %(tenant)s AND r.run_id = %(run_id)s
        ))) * interval '1 second'
    FROM graphwright.placements p
    WHERE q.run_id = %(run_id)s AND q.tenant = %(tenant)s AND q.state = 'placed'
        AND p.run_id = q.run_id AND p.attempt = %(attempt)s
    RETURNING q.tenant, q.run_id
), struck AS (
    UPDATE graphwright.runs r SET strikes = r.strikes + 1, epoch = r.epoch + 1
    FROM back WHERE r.tenant = back.tenant AND r.run_id = back.run_id
    RETURNING r.tenant, r.run_id, r.strikes
), noted AS (
    UPDATE graphwright.placements p SET reason = %(reason)s
    FROM struck WHERE p.run_id = struck.run_id AND p.tenant = struck.tenant
)
SELECT strikes FROM struck
"""

REMOVED: Final[LiteralString] = """
UPDATE graphwright.placements SET removed = true
WHERE run_id = %(run_id)s AND tenant = %(tenant)s AND attempt = %(attempt)s
"""

# Not where the run is being placed anew.
FORGET: Final[LiteralString] = """
DELETE FROM graphwright.placements
WHERE run_id = %(run_id)s AND tenant = %(tenant)s AND attempt = %(attempt)s
"""
