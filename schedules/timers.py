"""What a timer's owner asks of it: when it is due next, and to fire now."""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

import orjson

from dynamic_jobs.creating.trigger import Trigger
from foundation.errors import Conflict
from graph_defs.expressions import Evaluator
from graph_defs.recurrence import recurrence_of
from graph_defs.trigger_store import StoredTrigger
from graph_defs.triggers import TimerTrigger
from schedules.firing import Firing, Timer, cause_of


def upcoming(stored: StoredTrigger, now: datetime, count: int) -> list[datetime]:
    """Its next due times, at most ``count``; also of one that is disabled.

    Raises Conflict for a trigger that is no timer.
    """
    timer = timer_of(stored)
    recurrence = recurrence_of(TimerTrigger.model_validate_json(timer.config))

    def from_now() -> Iterator[datetime]:
        due_at = recurrence.next(now)
        while due_at is not None:
            yield due_at
            due_at = recurrence.next(due_at)

    return list(islice(from_now(), count))


async def fire_now(stored: StoredTrigger, now: datetime, evaluator: Evaluator) -> Trigger:
    """What starts a run as if the timer were due ``now``, its own due times apart.

    For ``RunCreator.start``. Raises Conflict for a trigger that is no timer, and
    :class:`firing.NoParams`.
    """
    timer = timer_of(stored)
    cause = {**cause_of(timer, now), "manual": True}
    params = await asyncio.to_thread(Firing(evaluator).params, timer, cause, quickly=False)
    return Trigger(params, cause, author=f"timer:{timer.name}")


def timer_of(stored: StoredTrigger) -> Timer:
    """The timer that this trigger is. Raises Conflict where it is none."""
    if stored.type != "timer":
        raise Conflict(
            f"the trigger `{stored.name}` is no timer",
            hint="Only timers have due times.",
            trigger_id=stored.trigger_id,
        )
    return Timer(
        stored.tenant,
        stored.trigger_id,
        stored.graph_id,
        stored.name,
        orjson.dumps(stored.config).decode(),
    )
