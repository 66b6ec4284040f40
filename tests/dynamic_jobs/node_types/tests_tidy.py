"""``tests.tidy``: is under way until it is cancelled, and then takes a moment to clean up."""

import asyncio

from node_types.base import Fields, LoopNodeType, NodeContext


class Tidy(Fields):
    pass


class TestsTidy(LoopNodeType[Tidy, Tidy]):
    """Says when it has started, and when it has cleaned up."""

    name = "tests.tidy"
    version = 1
    effects = "none"
    With = Tidy
    Output = Tidy

    async def run(self, given: Tidy, context: NodeContext) -> Tidy:
        context.log("info", "started")
        try:
            return await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            for _ in range(3):
                await asyncio.sleep(0)
            context.log("info", "cleaned up")
            raise
