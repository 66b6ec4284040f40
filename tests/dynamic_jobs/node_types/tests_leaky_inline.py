"""``tests.leaky_inline``: tells its secret wherever it can."""

from tests.dynamic_jobs.leaky_types import LeakyInline


class TestsLeakyInline(LeakyInline):
    """Tells its secret."""

    name = "tests.leaky_inline"
    version = 1
