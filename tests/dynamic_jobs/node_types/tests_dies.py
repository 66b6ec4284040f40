"""``tests.dies``: ends the process that computes it."""

import os
import signal

from node_types.base import Fields, ProcessNodeType


class Dies(Fields):
    pass


class Died(Fields):
    pass


class TestsDies(ProcessNodeType[Dies, Died]):
    """Ends its process, as the kernel does when memory runs out."""

    name = "tests.dies"
    version = 1
    effects = "none"
    With = Dies
    Output = Died

    def compute(self, given: Dies) -> Died:
        os.kill(os.getpid(), signal.SIGKILL)
        return Died()
