"""Rate limits: of a tenant by all of its requests, of an address by those without a good token.

An address with good tokens is not stopped, whatever others behind it do: many people share one.
After too many requests without, those that bring none get 429, with a bad token too, so that
guessing goes no faster than the limit.
"""

from typing import Final, cast

from limits.storage import Storage
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foundation.errors import RateLimited
from foundation.ids import TenantId
from live_api.edge.addresses import client_of
from live_api.edge.callers import CALLER, REFUSED
from live_api.identity import Principal
from live_api.problems import answer_problem
from live_api.rates import Rate

_FREE: Final = frozenset({"/healthz", "/readyz"})
_MINUTE: Final = 60


class RateLimits:
    """What is counted for one application. Tenants and addresses have counters of their own, so
    that a flood from many addresses makes none forget what a tenant has used.
    """

    def __init__(
        self, per_tenant: int, per_address: int, tenants: Storage, addresses: Storage
    ) -> None:
        self._tenants = _Policy("tenant", per_tenant, tenants)
        self._addresses = _Policy("address", per_address, addresses)

    def take(self, tenant: TenantId | None, client: str) -> None:
        """Count a request: of a tenant, or of an address if no good token came with it.

        Raises RateLimited where it is one too many.
        """
        if tenant is not None:
            self._tenants.take(tenant, "the tenant has sent")
        else:
            self._addresses.take(client, "this address has sent, without a valid token,")

    def headers(self, tenant: TenantId | None, client: str) -> list[tuple[bytes, bytes]]:
        """draft-ietf-httpapi-ratelimit-headers-10, of the limit that a request counted for."""
        policy, key = (self._addresses, client) if tenant is None else (self._tenants, tenant)
        return policy.headers(key)


class RateLimit:
    """Counts requests, refuses what is too many, and tells clients how much of which limit is left.

    Stands inside of ``Authenticate``, which knows the tenant.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"} or scope["path"] in _FREE:
            await self._app(scope, receive, send)
            return
        limits = cast("RateLimits", scope["app"].state.services.rates)
        state = scope["state"]
        caller = cast("Principal | None", state.get(CALLER))
        tenant = None if caller is None else caller.tenant
        client = client_of(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"].endswith("http.response.start"):
                message["headers"] += limits.headers(tenant, client)
            await send(message)

        try:
            limits.take(tenant, client)
        except RateLimited as error:
            if tenant is None or scope["type"] == "http":
                await answer_problem(scope, receive, send_with_headers, error)
                return
            state[REFUSED] = error  # its route accepts the socket, and closes it with a code
        await self._app(scope, receive, send_with_headers)


class _Policy:
    def __init__(self, name: str, per_minute: int, counters: Storage) -> None:
        self._rate = Rate(per_minute, counters, name)
        self._name = name
        self._policy = f'"{name}";q={per_minute};w={_MINUTE}'.encode()

    def headers(self, key: str) -> list[tuple[bytes, bytes]]:
        left, seconds = self._rate.left(key)
        return [
            (b"ratelimit-policy", self._policy),
            (b"ratelimit", b'"%b";r=%d;t=%d' % (self._name.encode(), left, seconds)),
        ]

    def take(self, key: str, who_has: str) -> None:
        if self._rate.take(key):
            return
        seconds = self._rate.seconds_left(key)
        raise RateLimited(
            f"{who_has} more than {self._rate.per_minute:,} requests in a minute",
            hint=f"Try again in {seconds} s.",
            retry_after=seconds,
            limit=self._name,
        )
