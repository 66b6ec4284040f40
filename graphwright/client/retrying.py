"""When to try again, and after how long."""

import random
from dataclasses import dataclass

import httpx

AGAIN = frozenset({429, 502, 503, 504})
"""Statuses of a request that may be answered otherwise in a moment."""
# Of these nothing has reached the API, so any request may be sent again.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True, slots=True)
class Retry:
    """How much trouble is borne before an error is raised.

    ``attempts``: of a call. ``stream_attempts``: of a stream, in a row without an event or a
    heartbeat. Between two attempts there is as much time as the API's ``Retry-After`` says; without
    one ``first_seconds``, then twice as much each time, up to ``most_seconds``, and up to half of
    it less, by chance. A ``Retry-After`` beyond ``longest_seconds`` is an error at once.
    """

    attempts: int = 6
    stream_attempts: int = 8
    first_seconds: float = 0.2
    most_seconds: float = 5.0
    longest_seconds: float = 60.0

    def seconds(self, attempt: int, answer: httpx.Response | None = None) -> float | None:
        """What to wait after this attempt, the first of which is 1; None: give up."""
        asked = None if answer is None else retry_after(answer)
        if asked is not None:
            return asked if asked <= self.longest_seconds else None
        longest = min(self.first_seconds * 2 ** (attempt - 1), self.most_seconds)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


class Attempts:
    """Those of one call."""

    def __init__(self, retry: Retry, *, repeatable: bool) -> None:
        self._retry = retry
        self._repeatable = repeatable
        self._made = 0

    def wait(self, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Seconds until the next attempt, None where there is none to be."""
        self._made += 1
        if self._made >= self._retry.attempts:
            return None
        if isinstance(outcome, httpx.Response):
            again = outcome.status_code in AGAIN and self._repeatable
            return self._retry.seconds(self._made, outcome) if again else None
        again = self._repeatable or isinstance(outcome, _UNSENT)
        return self._retry.seconds(self._made) if again else None


def retry_after(answer: httpx.Response) -> int | None:
    """The seconds that the answer asks for; a date, which the API never sends, counts as none."""
    text = answer.headers.get("Retry-After", "")
    return int(text) if text.isdecimal() else None
