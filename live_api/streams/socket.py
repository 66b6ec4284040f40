"""A WebSocket for any number of streams: subscribe to runs, graphs or everything, and unsubscribe.

receive ─► _Session.take ─► a task for each subscription ─► send
                                                             ▲
the token expires, the process ends, the client is too slow ─┴─► close
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager, suppress
from typing import Annotated, ClassVar, Final

import psycopg
from fastapi import APIRouter, Depends, WebSocket

from dynamic_jobs.reading.event_log import event_id_of, run_id_of
from dynamic_jobs.reading.events import RunEvent
from dynamic_jobs.reading.many_position import Position, position_of
from dynamic_jobs.reading.many_tail import Placed
from dynamic_jobs.reading.stream import ShuttingDown
from dynamic_jobs.reading.stream_inbox import Inbox, SlowClient
from foundation.errors import Forbidden, GraphwrightError, RateLimited, Unavailable
from foundation.tasks import cancel
from live_api.dependencies import Services, require_websocket, services
from live_api.edge.callers import bearer_subprotocol
from live_api.identity import Principal
from live_api.streams.clients import Client
from live_api.streams.close_codes import GONE, Close, close, close_for
from live_api.streams.messages import (
    Authenticate,
    BadMessage,
    Ping,
    Subscribe,
    Unsubscribe,
    event_head,
    many_events,
    parse,
    ref_of,
    run_events,
    told,
    told_error,
)
from live_api.streams.selection import Selection, types_of

_log = logging.getLogger(__name__)

router = APIRouter(prefix="/api/v1")

_MAX_SUBSCRIPTIONS: Final = 1_000
_MESSAGES_A_SECOND: Final = 100
_MESSAGES_AT_ONCE: Final = 2 * _MAX_SUBSCRIPTIONS


class BadSubscription(GraphwrightError):
    """There is such a subscription already, or none, or too many."""

    code: ClassVar[str] = "bad_subscription"
    status: ClassVar[int] = 409


@router.websocket("/ws")
async def follow_many(websocket: WebSocket, parts: Annotated[Services, Depends(services)]) -> None:
    """Messages of JSON both ways, as docs/events.md says."""
    await websocket.accept(subprotocol=bearer_subprotocol(websocket))
    try:
        caller = await require_websocket("runs:read")(websocket)
    except GraphwrightError as error:
        await close(websocket, close_for(error))
        return
    session = _Session(websocket, parts, caller)
    with parts.streams.clients.sending(session.client):
        await close(websocket, await session.run())


class _Session:
    """One socket, from its first message to its last."""

    def __init__(self, websocket: WebSocket, parts: Services, caller: Principal) -> None:
        self._websocket = websocket
        self._parts = parts
        self._caller = caller
        self._subscriptions: dict[str, asyncio.Task[None]] = {}
        self._sending = asyncio.Lock()
        self._over: asyncio.Future[Close] = asyncio.get_running_loop().create_future()
        path = websocket.url.path
        self.client = Client(path, caller.expires_at, self._end, beat=None)

    async def run(self) -> Close:
        """Until the client leaves, or there is a reason to close."""
        receiving = asyncio.create_task(self._receive())
        try:
            await asyncio.wait((receiving, self._over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(receiving, *self._subscriptions.values())
        return self._over.result() if self._over.done() else Close(1000)

    def _end(self, error: Exception) -> None:
        if not self._over.done():
            known = isinstance(error, GraphwrightError)
            self._over.set_result(close_for(error) if known else Close(1011))

    def _break(self, error: Exception) -> None:
        """A fault of ours ends the socket, so that nobody waits for what will never come."""
        _log.error("the socket of a client broke", exc_info=error)
        self._end(error)

    async def _receive(self) -> None:
        allowed, since = float(_MESSAGES_AT_ONCE), time.monotonic()
        try:
            while (message := await self._websocket.receive())["type"] != "websocket.disconnect":
                now = time.monotonic()
                allowed += _MESSAGES_A_SECOND * (now - since)
                allowed, since = min(allowed, _MESSAGES_AT_ONCE) - 1, now
                if allowed < 0:
                    raise RateLimited("this socket sends too many messages")
                await self._answer(message.get("text"))
                await asyncio.sleep(0)  # others' turn: what has come already is there at once
        except RateLimited as error:
            self._end(error)
        except GONE:
            pass
        except Exception as error:
            self._break(error)

    async def _answer(self, text: str | None) -> None:
        try:
            if text is None:
                raise BadMessage("a message is text, not bytes")
            with _told_when_away():
                await self._take(text)
        except GraphwrightError as error:
            await self._send(told_error(error, None if text is None else ref_of(text)))

    async def _take(self, text: str) -> None:
        message = parse(text)
        if isinstance(message, Subscribe | Authenticate):
            self._parts.rates.take(self._caller.tenant, "")  # as a request of their own
        match message:
            case Subscribe() as asked:
                if asked.ref in self._subscriptions:
                    raise BadSubscription(
                        "there is a subscription of this ref", hint="Unsubscribe first."
                    )
                if len(self._subscriptions) >= _MAX_SUBSCRIPTIONS:
                    raise BadSubscription(
                        f"there are {_MAX_SUBSCRIPTIONS:,} subscriptions", hint="Open a new socket."
                    )
                task = asyncio.create_task(self._follow(asked))
                self._subscriptions[asked.ref] = task
            case Unsubscribe(ref=ref):
                task = self._subscriptions.get(ref)
                if task is None:
                    raise BadSubscription("there is no subscription of this ref")
                await cancel(task)  # should we be cancelled here, `run` still finds it
                self._subscriptions.pop(ref, None)
                await self._send(told("unsubscribed", ref=ref))
            case Authenticate(token=token):
                await self._authenticate(token)
            case Ping():
                await self._send(told("pong"))

    async def _authenticate(self, token: str) -> None:
        caller = await self._parts.verifier.verify(token)
        known = (self._caller.tenant, self._caller.subject)
        if caller.run_id is not None or (caller.tenant, caller.subject) != known:
            raise Forbidden(
                "this token is not of the same tenant and subject", hint="Open a new socket."
            )
        caller.require("runs:read")
        self._caller = caller
        self.client.expires_at = caller.expires_at
        await self._send(told("authenticated", expires_at=int(caller.expires_at)))

    async def _follow(self, asked: Subscribe) -> None:
        """One subscription, to its end; what ends it is told to the client, or ends the socket."""
        try:
            with _told_when_away():
                async for message in self._messages(asked):
                    await self._send(message)
            last = told("ended", ref=asked.ref)
        except (SlowClient, ShuttingDown) as error:
            self._end(error)
            return
        except GraphwrightError as error:
            last = told_error(error, asked.ref)
        except GONE:
            return
        except Exception as error:
            self._break(error)
            return
        self._subscriptions.pop(asked.ref, None)
        with suppress(*GONE):
            await self._send(last)

    def _messages(self, asked: Subscribe) -> AsyncGenerator[str]:
        return self._of_many(asked) if asked.run_id is None else self._of_run(asked, asked.run_id)

    async def _of_run(self, asked: Subscribe, run: str) -> AsyncGenerator[str]:
        streams, tenant = self._parts.streams, self._caller.tenant
        run_id, after = run_id_of(run), event_id_of(asked.after or "0")
        first = await streams.hub.first_page(tenant, run_id, after)
        inbox: Inbox[RunEvent] = streams.hub.inbox()
        head = event_head(asked.ref)
        with streams.presence.watching(run_id, self._caller.subject, "websocket"):
            yield told("subscribed", ref=asked.ref, id=str(after))
            following = streams.hub.follow(tenant, run_id, after, first, inbox)
            async with aclosing(following) as batches:
                async for batch in batches:
                    for tail in batch.made(run_events):
                        yield head + tail

    async def _of_many(self, asked: Subscribe) -> AsyncGenerator[str]:
        many, tenant = self._parts.streams.hub.many, self._caller.tenant
        graphs = None
        if asked.graph is not None:
            graphs = frozenset({(await self._parts.store.get(tenant, asked.graph)).graph_id})
        selection = Selection(
            graphs, types_of(asked.types, asked.statuses), frozenset(asked.labels)
        )
        after = position_of(asked.after) if asked.after is not None else None
        inbox: Inbox[Placed] = many.inbox()
        head = event_head(asked.ref)
        async with aclosing(many.follow(tenant, after, inbox)) as items:
            async for item in items:
                if isinstance(item, Position):
                    yield told("subscribed", ref=asked.ref, id=str(item))
                else:
                    for tail in item.made(selection).made(many_events):
                        yield head + tail

    async def _send(self, message: str) -> None:
        async with self._sending:
            self.client.sends_since = time.monotonic()
            await self._websocket.send_text(message)
            self.client.sends_since = None


@contextmanager
def _told_when_away() -> Generator[None]:
    """A database that does not answer is :class:`Unavailable`, which clients are told."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise Unavailable("the database does not answer", hint="Try again in a moment.") from error
