"""Our sensors as Dagster knows them, with their switches and ticks in its UI.

Dagster's daemon evaluates them now and then, as a safety net; mostly our dispatcher has been there
before. They return no run requests: Dagster would launch only jobs that the sensor declares, and
what is evaluated has made its runs itself, and written the tick that names them.
"""

from collections.abc import Callable
from typing import Final

from dagster import DefaultSensorStatus, SensorDefinition, SensorEvaluationContext, SkipReason

from dynamic_jobs.ticks import Instigator

WEBHOOK_SENSOR: Final = "webhook_sensor"
NOTIFY_SENSOR: Final = "notify_sensor"

_INTERVAL_SECONDS: Final = 30


def webhook_sensor(instigator: Instigator, dispatch: Callable[[], int]) -> SensorDefinition:
    """Starts runs for the calls of webhooks. ``dispatch`` does so, and says for how many."""
    return _sensor(
        instigator,
        "Starts runs for the calls of graphs' webhooks. Switched off, calls wait in the inbox.",
        dispatch,
    )


def notify_sensor(instigator: Instigator, dispatch: Callable[[], int]) -> SensorDefinition:
    """Does what ends of runs set off. ``dispatch`` does so, and says for how many."""
    return _sensor(
        instigator,
        "Starts graphs and calls URLs when runs have ended, as graphs' `notify` says. Switched "
        "off, notices wait.",
        dispatch,
    )


def _sensor(
    instigator: Instigator, description: str, dispatch: Callable[[], int]
) -> SensorDefinition:
    def evaluate(_context: SensorEvaluationContext) -> SkipReason:
        found = dispatch()
        if found:
            return SkipReason(f"{found} that the dispatcher had not come to; see the tick before.")
        return SkipReason("Nothing waits: the dispatcher has seen to it.")

    return SensorDefinition(
        name=instigator.name,
        evaluation_fn=evaluate,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        description=description,
        default_status=DefaultSensorStatus.RUNNING,
    )
