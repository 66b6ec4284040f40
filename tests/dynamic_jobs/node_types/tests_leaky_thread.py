"""``tests.leaky_thread``: tells its secret wherever it can."""

from tests.dynamic_jobs.leaky_types import LeakyThread


class TestsLeakyThread(LeakyThread):
    """Tells its secret."""

    name = "tests.leaky_thread"
    version = 1
