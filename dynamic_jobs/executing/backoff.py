"""When a node that failed is tried again, if at all."""

from dynamic_jobs.executing.nodes import may_pass
from foundation.errors import GraphwrightError
from graph_defs.document import Retry


def is_retried(retry: Retry | None, failures: int, error: GraphwrightError) -> bool:
    """Whether another attempt follows this error, which is the node's ``failures``-th, from 1."""
    if retry is None or failures > retry.limit or not may_pass(error):
        return False
    return retry.on is None or error.code in retry.on


def delay_seconds(retry: Retry, failures: int, chance: float) -> float:
    """Seconds from the ``failures``-th failure, counted from 1, to the next attempt.

    ``chance``, from 0 to 1, takes as much off the delay as its jitter allows: what failed at the
    same time does not come back at the same time, and no delay is longer than its maximum.
    """
    delay = retry.delay_seconds
    if retry.backoff == "exponential":
        delay *= 2.0 ** (failures - 1)
    return min(delay, retry.max_delay_seconds) * (1 - retry.jitter * chance)
