"""``tests.leaky_loop``: tells its secret wherever it can."""

from tests.dynamic_jobs.leaky_types import LeakyLoop


class TestsLeakyLoop(LeakyLoop):
    """Tells its secret."""

    name = "tests.leaky_loop"
    version = 1
