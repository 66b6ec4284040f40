"""From a timer and a due time to the run that is to be made."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast
from uuid import UUID, uuid5

from dynamic_jobs.creating.many import Wanted
from dynamic_jobs.creating.trigger import Trigger
from foundation.errors import GraphwrightError, Invalid
from foundation.ids import GraphId, RunId, TenantId, TriggerId
from foundation.recent import Recent
from graph_defs.expressions import Evaluator, ExpressionError, Scope, Template
from graph_defs.json_values import Json, JsonObject, kind_of
from graph_defs.recurrence import Recurrence, due_text, recurrence_of
from graph_defs.triggers import TimerTrigger

_KEPT: Final = 4_096


class NoParams(GraphwrightError):
    """The timer's params have no value for this due time, so its run cannot be made."""

    code = "timer_params_failed"
    status = 422


@dataclass(frozen=True, slots=True)
class Timer:
    """A timer of a graph."""

    tenant: TenantId
    trigger_id: TriggerId
    graph_id: GraphId
    name: str
    config: str
    """As the document has it, as JSON text."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A timer's config, read."""

    trigger: TimerTrigger
    recurrence: Recurrence
    params: Template


class Firing:
    """Reads timers and evaluates their params. What was used last is kept."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._prepared = Recent[str, Prepared](_KEPT)

    def prepare(self, config: str) -> Prepared:
        """Read a timer's config. Raises ValueError where that was good once and no longer is, as
        when its zone is no longer known."""
        prepared = self._prepared.get(config)
        if prepared is None:
            trigger = TimerTrigger.model_validate_json(config)
            params = self._evaluator.compile(cast("Json", trigger.params))
            prepared = Prepared(trigger, recurrence_of(trigger), params)
            self._prepared.keep(config, prepared)
        return prepared

    def ask(
        self,
        timer: Timer,
        due_at: datetime,
        tags: Mapping[str, str],
        *,
        quickly: bool,
        backfill_id: str = "",
    ) -> Wanted:
        """The run of this due time, or that of a backfill.

        Raises :class:`NoParams`; and ``NotQuick``, where it is asked for ``quickly``, if its params
        take more than a fraction of a millisecond.
        """
        cause = cause_of(timer, due_at)
        if backfill_id:
            cause["backfill_id"] = backfill_id
        trigger = Trigger(
            self.params(timer, cause, quickly=quickly),
            cause,
            author=f"timer:{timer.name}",
            tags=tags,
            run_id=run_of(backfill_id or timer.trigger_id, due_at),
        )
        return Wanted(timer.tenant, timer.graph_id, trigger)

    def params(self, timer: Timer, cause: JsonObject, *, quickly: bool) -> JsonObject:
        """The params of a run with this cause. Raises as :meth:`ask`."""
        evaluate = self._evaluator.evaluate_quickly if quickly else self._evaluator.evaluate_in_time
        scope = Scope(params={}, nodes={}, run={}, trigger=cause)
        try:
            params = evaluate(self.prepare(timer.config).params, scope)
        except ExpressionError as error:
            raise NoParams(f"{error.message}. {error.hint}".strip()) from None
        except Invalid as error:  # the limits of the installation have become narrower
            raise NoParams(str(error)) from None
        if not isinstance(params, dict):
            raise NoParams(f"the timer's params give {kind_of(params)}, and no object")
        return params


def cause_of(timer: Timer, due_at: datetime) -> JsonObject:
    """Why the run of this due time is there; what expressions see as ``trigger``."""
    return {
        "type": "timer",
        "name": timer.name,
        "trigger_id": timer.trigger_id,
        "due_at": due_text(due_at),
    }


def run_of(owner_id: str, due_at: datetime) -> RunId:
    """The id of the run that a timer, or a backfill, has for a due time: there cannot be two."""
    return RunId(str(uuid5(UUID(owner_id), due_text(due_at))))
