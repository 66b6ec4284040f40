"""Making runs in the caller's transaction, whatever the database says to one of them."""

import logging
from collections.abc import Sequence
from typing import Final

import psycopg

from dynamic_jobs.compiling.prepared import NodeTypeUnavailable
from dynamic_jobs.creating.many import Made, ManyRuns, Outcome, Wanted
from foundation.database import AsyncConnection
from foundation.errors import Conflict, Invalid, QuotaExceeded

_log = logging.getLogger(__name__)

INTERNAL: Final = "an internal fault, which the dispatcher's log has"


async def make_runs(
    connection: AsyncConnection, runs: ManyRuns, wanted: Sequence[Wanted], *, quickly: bool
) -> tuple[list[Outcome], list[Made]]:
    """An outcome for each run that is wanted, by its own id; and what to settle after the commit.

    One that the database refuses costs only itself. A run that is there already is an outcome like
    one that was made: it is of the same due time.

    ``quickly`` as in :meth:`ManyRuns.create_many`.

    Raises psycopg.OperationalError where the database is away.
    """
    if not wanted:
        return [], []
    try:
        async with connection.transaction():
            made = await runs.create_many(connection, wanted, quickly=quickly)
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        if len(wanted) > 1:
            _log.warning("a batch of %d runs is taken apart: %s", len(wanted), error)
            apart = [await make_runs(connection, runs, [each], quickly=quickly) for each in wanted]
            return (
                [outcome for outcomes, _ in apart for outcome in outcomes],
                [each for _, made in apart for each in made],
            )
        run_id = wanted[0].trigger.run_id
        if isinstance(error, psycopg.errors.UniqueViolation) and run_id is not None:
            return [run_id], []
        _log.exception("a run cannot be stored: %s", wanted[0].trigger.cause)
        return [Invalid(INTERNAL, [])], []
    return list(made.outcomes), [made]


def is_passing(outcome: Outcome) -> bool:
    """Whether the run could not be made for a reason that will pass."""
    return isinstance(outcome, QuotaExceeded | Conflict | NodeTypeUnavailable)
