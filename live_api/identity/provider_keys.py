"""The keys of an OpenID provider, read from its JWKS address and kept."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import httpx
import jwt

_ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
_FRESH_SECONDS: Final = 600
_RETRY_SECONDS: Final = 30
"""The least time between two questions to the provider, whatever tokens come."""
_TIMEOUT_SECONDS: Final = 3.0

_log = logging.getLogger(__name__)


class ProviderKeys:
    """The keys at ``url``. For one event loop.

    They are read anew when they are ten minutes old, or a token names one that is not among them,
    but no more often than every 30 seconds. While the provider is away, those last read are good.
    """

    def __init__(
        self, client: httpx.AsyncClient, url: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._url = url
        self._clock = clock
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._read_at = self._asked_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    @property
    def are_read(self) -> bool:
        """Whether the provider ever answered."""
        return self._read_at > float("-inf")

    async def find(self, key_id: object) -> jwt.PyJWK | None:
        """The key of this ``kid``. Where a token names none: the only key, if there is but one."""
        if key_id is not None and not isinstance(key_id, str):
            return None
        now = self._clock()
        is_good = key_id in self._keys and now < self._read_at + _FRESH_SECONDS
        if not is_good and now >= self._asked_at + _RETRY_SECONDS:
            self._asked_at = now
            self._reading = asyncio.create_task(self._read())
        if not is_good and self._reading is not None:
            await asyncio.shield(self._reading)  # however many ask, one reads
        return self._keys.get(key_id)

    async def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        try:
            answer = await self._client.get(self._url, timeout=_TIMEOUT_SECONDS)
            keys = usable_keys(answer.raise_for_status().json())
        except (httpx.HTTPError, ValueError) as error:
            _log.warning("the keys at %s cannot be read: %s", self._url, error)
            return
        self._keys, self._read_at = keys, self._clock()


def usable_keys(document: object) -> Mapping[str | None, jwt.PyJWK]:
    """The keys of a JWKS document that sign as we accept it, by their ``kid``; a single one also
    under None. Raises ValueError for what is no JWKS document.

    A key tells its algorithm itself, by ``alg`` or by its type and curve. Symmetric keys, keys for
    encryption and other algorithms are left out.
    """
    listed = cast("dict[str, Any]", document).get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("it is no JWKS document")
    keys: dict[str | None, jwt.PyJWK] = {}
    for each in cast("list[Any]", listed):
        key = _usable(each)
        if key is not None:
            keys[key.key_id] = key
    if len(keys) == 1:
        keys[None] = next(iter(keys.values()))
    elif None in keys:  # which of them a token without a `kid` means, cannot be told
        del keys[None]
    return keys


def _usable(listed: object) -> jwt.PyJWK | None:
    if not isinstance(listed, dict):
        return None
    given = cast("dict[str, Any]", listed)
    if given.get("use", "sig") != "sig" or not isinstance(given.get("kid"), str | None):
        return None
    if given.get("alg") not in (None, *_ALGORITHMS):
        return None
    try:
        key = jwt.PyJWK(given)
    except (jwt.PyJWTError, TypeError, ValueError):
        return None
    return key if key.algorithm_name in _ALGORITHMS else None
