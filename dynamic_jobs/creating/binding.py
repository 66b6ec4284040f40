"""From what a trigger asks for to the run that is to be made: params bound, slot and id chosen."""

from dynamic_jobs.creating.idempotency import digest
from dynamic_jobs.creating.launchable import Launchable
from dynamic_jobs.creating.new_run import NewRun
from dynamic_jobs.creating.trigger import Trigger
from dynamic_jobs.foreign_json import reserved_key_faults
from foundation.errors import Invalid
from foundation.ids import RunId, new_id
from foundation.settings import Limits
from foundation.telemetry.context import TRACEPARENT
from graph_defs.expressions import Evaluator


def bind(
    launchable: Launchable,
    trigger: Trigger,
    limits: Limits,
    evaluator: Evaluator,
    *,
    quickly: bool = False,
) -> NewRun:
    """The run that the trigger asks for.

    Raises:
        Invalid, TooLarge: ``params`` do not fit the graph's schema; the faults' pointers are below
            ``/params``.
        NotQuick: it was asked for ``quickly``, and may take more than some 50 ms.
    """
    bound = launchable.params.bind(trigger.params, limits, quickly=quickly)
    if faults := reserved_key_faults(bound, ("params",)):
        raise Invalid("The params hold reserved names.", faults)
    rule = launchable.concurrency
    return NewRun(
        trigger.run_id or RunId(new_id()),
        bound,
        trigger.cause,
        trigger.author,
        trigger.priority,
        trigger.not_before,
        trigger.live,
        slot=rule and rule.slot(evaluator, bound, trigger.cause, quickly=quickly),
        idempotency=digest(launchable.version.graph_id, trigger),
        parent=trigger.parent,
        tags=trigger.tags,
        traceparent=trigger.traceparent or TRACEPARENT.get(),
    )
