"""Runs that wait off their worker, and time that passes for them: no test has to be quicker."""

from foundation.ids import RunId
from tests.dynamic_jobs.conftest import Bench


def an_hour_later(bench: Bench, run_id: RunId) -> None:
    """Have all that is known of a waiting run be an hour older, so that it may go on.

    Its nodes' waits and delays begin at their events' times. A worker that runs already may look
    for it late.
    """
    for statement in (
        "UPDATE event_logs SET timestamp = timestamp - interval '1 hour' WHERE run_id = %s",
        "UPDATE graphwright.runs SET started_at = started_at - interval '1 hour'"
        " WHERE run_id = %s AND status = 'waiting'",
        "UPDATE graphwright.run_queue SET not_before = now() WHERE run_id = %s",
    ):
        assert bench.connection.execute(statement, (run_id,)).rowcount
