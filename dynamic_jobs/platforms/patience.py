"""A platform that does not answer is asked again for a while: the step on it goes on meanwhile."""

import time
from typing import Final

from dynamic_jobs.platforms.base import Ending

AWAY_SECONDS: Final = 600.0
"""How long a platform may be away before a step that runs on it is given up."""
_PAUSE_SECONDS: Final = 2.0


class Patience:
    """Of whoever follows one step."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._since: float | None = None

    def answered(self) -> None:
        """The platform is there."""
        self._since = None

    def away(self, error: Exception) -> None:
        """It did not answer: wait a moment. Raises the error when that lasts, or the step is to
        end."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= AWAY_SECONDS or self._ending.wait(_PAUSE_SECONDS):
            raise error
