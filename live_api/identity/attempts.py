"""How often somebody may try to log in, counted in this process."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from foundation.errors import RateLimited
from live_api.identity.api_keys import parse_api_key
from live_api.identity.sessions import Refused
from live_api.rates import Rate

_FAILURES_A_MINUTE: Final = 30
"""Of one address."""
_LOGINS_A_MINUTE: Final = 120
"""With one API key: each costs some 20 ms of a processor."""


class Attempts:
    """Logins of the last minute, and those under way."""

    def __init__(self) -> None:
        self._failures = Rate(_FAILURES_A_MINUTE)
        self._logins = Rate(_LOGINS_A_MINUTE)
        self._under_way = Counter[str]()

    @contextmanager
    def one(self, address: str, api_key: str) -> Generator[None]:
        """A login, which fails with Refused. Raises RateLimited where it is one too many."""
        # One that is under way may fail. Those that come at once do not get by while none has.
        if self._under_way[address] >= self._failures.left(address)[0]:
            raise _too_many(self._failures, address, "address")
        key = parse_api_key(api_key)
        if key is not None and self._logins.is_used_up(key.prefix):
            raise _too_many(self._logins, key.prefix, "api_key")
        self._under_way[address] += 1
        try:
            yield
        except Refused:
            self._failures.take(address)
            raise
        finally:
            self._under_way[address] -= 1
            if not self._under_way[address]:
                del self._under_way[address]
        # Only now: the prefix is no secret, and whoever knows it must not use up the owner's.
        if key is not None:
            self._logins.take(key.prefix)


def _too_many(rate: Rate, key: str, limit: str) -> RateLimited:
    seconds = rate.seconds_left(key)
    return RateLimited(
        "too many logins", hint=f"Try again in {seconds} s.", retry_after=seconds, limit=limit
    )
