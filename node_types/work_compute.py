"""``work.compute``: keeps one CPU busy; the body of replayed traces, and of load tests."""

from pydantic import Field

from node_types.base import Fields, ProcessNodeType

MAX_SECONDS = 3_600
_ROUND = 10_000


class Compute(Fields):
    """How much to compute."""

    seconds: float = Field(
        ge=0,
        le=MAX_SECONDS,
        allow_inf_nan=False,
        description="Seconds of CPU time to spend, at most an hour.",
    )


class Computed(Fields):
    """How much it computed."""

    seconds: float = Field(description="Seconds of CPU time that it spent.")


class WorkCompute(ProcessNodeType[Compute, Computed]):
    """Spends CPU time in a process of its own."""

    name = "work.compute"
    version = 1
    effects = "none"
    With = Compute
    Output = Computed

    def compute(self, given: Compute) -> Computed:
        import time

        started = time.process_time()
        while time.process_time() - started < given.seconds:
            sum(range(_ROUND))
        return Computed(seconds=time.process_time() - started)
