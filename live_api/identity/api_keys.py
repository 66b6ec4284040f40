"""API keys: ``gw_<8 characters, shown everywhere>_<43 characters, shown once>``."""

import asyncio
import re
import secrets
import string
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from foundation.errors import Unavailable

_KEY: Final = re.compile(r"gw_([a-z0-9]{8})_([A-Za-z0-9_-]{43})")
_PREFIX_CHARACTERS: Final = string.ascii_lowercase + string.digits
_SECRET_BYTES: Final = 32
_AT_ONCE: Final = 2
_MOST: Final = 34


class ApiKey(NamedTuple):
    """The two parts of a key. The prefix is no secret, and finds the row."""

    prefix: str
    secret: str

    def __str__(self) -> str:
        return f"gw_{self.prefix}_{self.secret}"


def new_api_key() -> ApiKey:
    prefix = "".join(secrets.choice(_PREFIX_CHARACTERS) for _ in range(8))
    return ApiKey(prefix, secrets.token_urlsafe(_SECRET_BYTES))


def parse_api_key(text: str) -> ApiKey | None:
    """The parts of a key; None for what cannot be one."""
    found = _KEY.fullmatch(text)
    return None if found is None else ApiKey(found[1], found[2])


class Hasher:
    """Hashes of keys' secrets by argon2id, in threads, two at once at most while 32 more wait.

    Beyond that it raises Unavailable: each takes some 20 ms of a processor, and who waits longer
    has left.

    The least cost that OWASP recommends, 19 MiB and two passes: a secret has 256 random bits, so
    that guessing is hopeless by any hash.
    """

    def __init__(self) -> None:
        self._argon2 = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._nobodys = self._argon2.hash(secrets.token_urlsafe(_SECRET_BYTES))
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._asked = 0

    async def hash(self, secret: str) -> str:
        async with self._turn():
            return await asyncio.to_thread(self._argon2.hash, secret)

    async def matches(self, hashed: str | None, secret: str) -> bool:
        """Whether ``hashed`` is of ``secret``. None, no such key, costs the same and is False."""
        async with self._turn():
            same = await asyncio.to_thread(self._verify, hashed or self._nobodys, secret)
        return same and hashed is not None

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        if self._asked == _MOST:
            hint = "Try again in a moment."
            raise Unavailable("too many API keys are being checked", hint=hint, retry_after=1)
        self._asked += 1
        try:
            async with self._free:
                yield
        finally:
            self._asked -= 1

    def _verify(self, hashed: str, secret: str) -> bool:
        try:
            return self._argon2.verify(hashed, secret)
        except VerifyMismatchError:
            return False
