"""Verifies whatever token a caller presents: of our own, or of the provider that we trust."""

import time
from collections.abc import Callable
from typing import Final

from foundation.recent import Recent
from live_api.identity import own_tokens
from live_api.identity.principal import Principal
from live_api.identity.provider import Provider
from live_api.identity.signing_key import SigningKey

_REMEMBERED: Final = 4_096  # tokens of some 400 bytes
_ROLE_SECONDS: Final = 30


class Verifier:
    """Verifies tokens, and remembers good ones: a client sends the same again.

    Our own are remembered until they expire, a provider's for 30 seconds at most, since its
    subject's role may change and its keys too. For one event loop.
    """

    def __init__(
        self,
        key: SigningKey,
        provider: Provider | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = key
        self._provider = provider
        self._clock = clock
        self._good = Recent[str, tuple[Principal, float]](_REMEMBERED)

    async def verify(self, token: str) -> Principal:
        """Who presents ``token``.

        Raises Unauthenticated; NotAMember for a provider's subject without a role; Unavailable
        where the provider's keys could never be read.
        """
        known = self._good.get(token)
        if known is not None and self._clock() < known[1]:
            return known[0]
        provider = self._provider
        # The issuer decides only who is asked: whoever that is verifies the issuer too.
        if provider is not None and own_tokens.issuer_of(token) == provider.issuer:
            until = self._clock() + _ROLE_SECONDS
            caller = await provider.verify(token)
        else:
            caller = own_tokens.verify(self._key, token)
            until = caller.expires_at
        self._good.keep(token, (caller, min(until, caller.expires_at)))
        return caller
