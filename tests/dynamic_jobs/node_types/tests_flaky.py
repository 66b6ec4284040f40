"""``tests.flaky``: fails so many times, then succeeds, and records an asset."""

from node_types.base import Fields, LoopNodeType, NodeContext, NodeError


class Flaky(Fields):
    failures: int


class Flaked(Fields):
    attempt: int


class TestsFlaky(LoopNodeType[Flaky, Flaked]):
    """Fails so many times, then succeeds."""

    name = "tests.flaky"
    version = 1
    effects = "none"
    With = Flaky
    Output = Flaked

    async def run(self, given: Flaky, context: NodeContext) -> Flaked:
        if context.attempt <= given.failures:
            raise NodeError(f"attempt {context.attempt} failed", hint="again")
        context.materialize(["tests", context.node], {"attempt": context.attempt})
        return Flaked(attempt=context.attempt)
