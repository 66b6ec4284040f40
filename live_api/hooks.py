"""The webhook receiver: an application and a process of its own, apart from the API.

    POST /hooks/{address} ─► whose is it? ─► does it prove itself? ─► inbox ─► 202

A call is answered with 2xx once its delivery is committed. The dispatcher makes runs of deliveries.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final, cast

import psycopg
from fastapi import FastAPI
from psycopg_pool import PoolTimeout
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from foundation.database import AsyncPool, async_pool
from foundation.errors import Unavailable
from foundation.secret_store import SecretStore, master_keys
from foundation.settings import Limits, Settings
from foundation.telemetry import health
from foundation.telemetry.logs import configure_logs
from foundation.telemetry.serving import listener_of, serving
from foundation.tenant_pool import TenantPool, tenant_sessions
from live_api.edge.addresses import client_of, proxies
from live_api.hook_answers import add_fault_handlers, refusal, success
from live_api.hook_call import kept_headers, kept_query, read_call
from live_api.middleware import BodyLimit, Bound, RequestId
from live_api.observing import Observe
from live_api.rates import Rate
from live_api.readiness import check_database
from live_api.serving import (
    HttpServer,
    listen,
    require_settings,
    server_tls,
    settle_interpreter,
)
from sensors.addresses import Addressee, Addresses, Found, Nobody
from sensors.inbox import Arrival, Inbox
from sensors.signatures import Call, Refused, verify
from sensors.signatures.base import kept_keys

_log = logging.getLogger(__name__)

_READERS: Final = 4
_WRITERS: Final = 2
_UNKNOWN_A_MINUTE: Final = 600
"""Addresses that do not exist, looked up for one client, before its others are looked up one at a
time."""
_BUSY_SECONDS: Final = 1
_REFUSED_A_MINUTE: Final = 60
"""Calls of one webhook without proof, by one client, before its calls of it are not looked at."""
_KEPT_A_MINUTE: Final = 5
"""Calls of one webhook without proof that its inbox shows."""


class Receiver:
    """Takes the calls of one process."""

    def __init__(
        self, addresses: Addresses, secrets: SecretStore, inbox: Inbox, per_minute: int
    ) -> None:
        self._addresses = addresses
        self._secrets = secrets
        self._inbox = inbox
        self._accepted = Rate(per_minute)
        self._unknown = Rate(_UNKNOWN_A_MINUTE)
        self._one_at_a_time = asyncio.Lock()
        self._refused = Rate(_REFUSED_A_MINUTE)
        self._kept = Rate(_KEPT_A_MINUTE)

    async def receive(self, request: Request) -> Response:
        """Answer one call."""
        address, client = request.path_params["address"], client_of(request.scope)
        to = await self._find(address, client)
        # Per webhook: many senders share addresses, and nobody may have a sender shut out of
        # somebody else's.
        refused_key = f"{address} {client}"
        if self._refused.is_used_up(refused_key):
            raise _too_many(self._refused, refused_key)
        call = await read_call(request)
        secrets = await self._valid_secrets(to)
        try:
            verified = verify(to.trigger, secrets, call)
        except Refused as refused:
            self._refused.take(refused_key)
            await self._note(_arrival(to, call, secrets, refused=refused.message))
            return refusal(401)
        if verified.answer is not None:
            return success(200, verified.answer)
        if not self._accepted.take(address):
            raise _too_many(self._accepted, address)
        accepted = await self._inbox.accept(
            _arrival(
                to,
                call,
                secrets,
                body=call.body,
                sender_id=verified.sender_id,
                keys=kept_keys(to.trigger, verified),
            )
        )
        if verified.silent:
            return Response(status_code=200)
        if accepted.duplicate:
            return success(200, {"delivery_id": accepted.delivery_id, "duplicate": True})
        return success(202, {"delivery_id": accepted.delivery_id})

    async def _find(self, address: str, client: str) -> Addressee:
        found = self._addresses.remembered(address) or await self._look_up(address, client)
        if isinstance(found, Nobody):
            raise HTTPException(404)
        return found

    async def _look_up(self, address: str, client: str) -> Found:
        """Whose an address is. Clients that have asked for too many that do not exist share what
        one lookup at a time can do: somebody else's webhook may be behind the same client.
        """
        if not self._unknown.is_used_up(client):
            found = await self._addresses.find(address)
        elif self._one_at_a_time.locked():
            raise HTTPException(503, headers={"Retry-After": str(_BUSY_SECONDS)})
        else:
            async with self._one_at_a_time:
                found = await self._addresses.find(address)
        if found is Nobody.UNKNOWN:
            self._unknown.take(client)
        return found

    async def _valid_secrets(self, to: Addressee) -> Sequence[str]:
        if to.trigger.secret is None:
            return ()
        return await self._secrets.valid(to.tenant, to.trigger.secret)

    async def _note(self, arrival: Arrival) -> None:
        """Show the trigger's owner that such calls come, and why they are refused."""
        if not self._kept.take(arrival.trigger_id):
            return
        try:
            await self._inbox.accept(arrival)
        except (psycopg.Error, PoolTimeout, Unavailable) as error:
            _log.warning("a refused call of %s is not in the inbox: %s", arrival.trigger_id, error)


def _too_many(rate: Rate, key: str) -> HTTPException:
    return HTTPException(429, headers={"Retry-After": str(rate.seconds_left(key))})


def _arrival(to: Addressee, call: Call, secrets: Collection[str], **more: Any) -> Arrival:
    """What is kept of a call in any case, and ``more``."""
    return Arrival(
        tenant=to.tenant,
        trigger_id=to.trigger_id,
        graph_id=to.graph_id,
        headers=kept_headers(to.trigger, call, secrets),
        query=kept_query(call, secrets),
        at=call.at,
        **more,
    )


def create_app(settings: Settings, limits: Limits) -> FastAPI:
    """The receiver as an ASGI application. It connects when it starts, and not before."""
    longest = Bound(limits.max_webhook_bytes, "GRAPHWRIGHT_MAX_WEBHOOK_BYTES")
    app = FastAPI(
        lifespan=_lifespan(settings),
        openapi_url=None,
        redirect_slashes=False,
        middleware=[
            *proxies(settings.trusted_proxies),
            Middleware(RequestId),
            Middleware(Observe),
            Middleware(BodyLimit, bound_of=lambda _: longest),
        ],
    )
    # Starlette's routes: FastAPI's would take as long as all the rest of a call.
    app.router.add_route("/hooks/{address}", _receive, methods=["POST"])
    app.router.add_route("/healthz", _healthz, methods=["GET"])
    app.router.add_route("/readyz", _readyz, methods=["GET"])
    add_fault_handlers(app)
    return app


async def _receive(request: Request) -> Response:
    receiver = cast("Receiver", request.app.state.receiver)
    try:
        return await receiver.receive(request)
    except ClientDisconnect:  # in the middle of its body
        return refusal(400)


async def _healthz(_request: Request) -> Response:
    return success(200, {"status": "ok"})


async def _readyz(request: Request) -> Response:
    await check_database(cast("AsyncPool", request.app.state.pool))
    return success(200, {"status": "ready"})


def _lifespan(settings: Settings) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        """A database that is away does not keep the process from starting."""
        async with AsyncExitStack() as stack:
            keys = master_keys(settings)
            stack.callback(keys.close)
            # Apart, so that looking up what does not exist keeps nothing from being stored.
            reading = async_pool(settings.database_url, size=_READERS)
            writing = async_pool(settings.database_url, size=_WRITERS)
            serving_one = tenant_sessions(settings.database_url, size=_READERS)
            for pool in (reading, writing, serving_one):
                await pool.open(wait=False)
                stack.push_async_callback(pool.close)
            inbox = Inbox(writing)
            stack.push_async_callback(inbox.close)
            stack.enter_context(
                serving(
                    listener_of(settings),
                    alive=[health.event_loop(asyncio.get_running_loop())],
                    ready=[health.database(settings)],
                    pools={"reading": reading, "writing": writing, "tenant": serving_one},
                )
            )
            app.state.pool = reading
            secrets = SecretStore(TenantPool(serving_one), keys)
            app.state.receiver = Receiver(
                Addresses(reading), secrets, inbox, settings.hooks_per_minute
            )
            yield

    return lifespan


def run(settings: Settings, limits: Limits) -> None:
    """Serve until SIGTERM or SIGINT; a second signal does not wait for calls under way.

    Raises CannotListen where the port is busy or the address is not ours, and NotConfigured where
    no database is named, or the certificate is no good.
    """
    configure_logs(settings.log_format)
    require_settings(settings, "database_url")
    app = create_app(settings, limits)
    tls = server_tls(settings)
    listener = listen("the webhook receiver", "HOOKS", settings.hooks_host, settings.hooks_port)
    settle_interpreter()
    HttpServer(app, "The webhook receiver", tls).run(sockets=[listener])
