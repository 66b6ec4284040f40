"""``tests.deaf``: holds its thread for ever, whatever it is told."""

import threading

from node_types.base import Fields, NodeContext, ThreadNodeType


class Deaf(Fields):
    pass


class TestsDeaf(ThreadNodeType[Deaf, Deaf]):
    """Says when it has started, and never ends."""

    name = "tests.deaf"
    version = 1
    effects = "none"
    With = Deaf
    Output = Deaf

    def run_blocking(self, given: Deaf, context: NodeContext) -> Deaf:
        context.log("info", "does not listen")
        threading.Event().wait()
        return given
