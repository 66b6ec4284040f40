"""``work.sleep``: waits; the body of replayed traces and of tests."""

from datetime import timedelta

from pydantic import Field

from node_types.base import Fields, LoopNodeType, NodeContext

MAX_SECONDS = 86_400


class Sleep(Fields):
    """How long to wait."""

    seconds: float = Field(
        ge=0, le=MAX_SECONDS, allow_inf_nan=False, description="Seconds to wait, at most a day."
    )


class Slept(Fields):
    """How long it waited."""

    seconds: float = Field(description="Seconds, as asked for.")


class WorkSleep(LoopNodeType[Sleep, Slept]):
    """Waits without holding a thread, and if it is long, without holding a worker."""

    name = "work.sleep"
    version = 1
    effects = "none"
    With = Sleep
    Output = Slept

    async def run(self, given: Sleep, context: NodeContext) -> Slept:
        await context.wait(context.started_at + timedelta(seconds=given.seconds))
        return Slept(seconds=given.seconds)
