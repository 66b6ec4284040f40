"""Our schedule as Dagster knows it, with its switch and ticks in its UI.

Dagster's daemon evaluates it each minute, as a safety net; mostly our dispatcher has been there
before. It returns no run requests: Dagster would launch only the one job that a schedule has. What
is evaluated has made its runs itself, and written the tick that names them.
"""

from collections.abc import Callable
from typing import Final

from dagster import (
    DefaultScheduleStatus,
    GraphDefinition,
    JobDefinition,
    OpExecutionContext,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
    in_process_executor,
    op,
)

from dynamic_jobs.naming import DISPATCH_TIMERS

TIMER_SCHEDULE: Final = "timer_schedule"


def dispatch_timers(dispatch: Callable[[], int]) -> JobDefinition:
    """The job of the schedules of all shards. ``dispatch`` starts runs for the timers that are due,
    and says how many timers those were."""

    @op(name=DISPATCH_TIMERS)
    def dispatching(context: OpExecutionContext) -> None:
        context.log.info(f"{dispatch()} timers were due.")

    graph = GraphDefinition(
        DISPATCH_TIMERS,
        description="What the timer schedules do each minute, and the dispatcher all the time.",
        node_defs=[dispatching],
    )
    return graph.to_job(executor_def=in_process_executor)


def timer_schedule(
    name: str, dispatching: JobDefinition, dispatch: Callable[[], int]
) -> ScheduleDefinition:
    """The schedule of one shard. ``dispatch`` starts its runs, and says for how many timers."""

    def evaluate(_context: ScheduleEvaluationContext) -> SkipReason:
        found = dispatch()
        if found:
            return SkipReason(f"{found} that the dispatcher had not come to; see the tick before.")
        return SkipReason("Nothing is due: the dispatcher has seen to it.")

    return ScheduleDefinition(
        name=name,
        cron_schedule="* * * * *",
        job=dispatching,
        execution_fn=evaluate,
        description="Starts runs when graphs' timers are due. Switched off, timers wait.",
        default_status=DefaultScheduleStatus.RUNNING,
    )
