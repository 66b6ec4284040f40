"""Ends of runs call URLs, as graphs' ``notify`` says: signed, and again until they are received.

A notice is claimed by putting off the time at which it is tried again; then it is called, with no
transaction open, and then the answer is written. Where a dispatcher dies in between, that time
comes, and another calls again, with the same ``webhook-id``: the receiver gets each notice at
least once, and can tell when it comes twice.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

import httpx
import psycopg
from psycopg_pool import PoolTimeout

from dynamic_jobs.ticks import Instigator
from foundation.database import AsyncPool
from foundation.errors import GraphwrightError
from foundation.ids import TenantId
from foundation.secret_store import SecretStore
from foundation.settings import Settings
from graph_defs.expressions import Evaluator
from graph_defs.triggers import Notify
from node_types.support.outbound import AddressRefused, CheckedTransport, is_any, is_public
from sensors.calls import Answer, CallFailed, answer_of, body_of, delay_seconds, headers_of
from sensors.notice_statements import ANSWERED, CLAIM_CALLS
from sensors.notices import Entries, Notice

_log = logging.getLogger(__name__)

_MOST_CALLS: Final = 64
"""Under way at once."""
_SHARE: Final = 8
"""A tenant with so many calls under way waits until one of them has ended."""
_CALL_SECONDS: Final = 10.0
_LEASE_SECONDS: Final = 60.0
"""Far longer than a call with all that belongs to it."""
_LOOK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Call:
    """A notice that was claimed, for its attempt of this number."""

    notice: Notice
    attempt: int
    notify: Notify | None
    """None where the run was removed."""


class NoticeCaller:
    """Calls the URLs that notices of one shard are for. For one event loop.

    As a context manager it waits at its end for the calls that are under way.
    """

    def __init__(
        self,
        pool: AsyncPool,
        secrets: SecretStore,
        evaluator: Evaluator,
        instigator: Instigator,
        settings: Settings,
    ) -> None:
        self._pool = pool
        self._secrets = secrets
        self._instigator = instigator
        self._entries = Entries(evaluator)
        self._api_url = settings.api_url
        self._allows = is_any if settings.http_private else is_public
        self._calls: dict[asyncio.Task[None], TenantId] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.gather(*self._calls)

    async def dispatch(self) -> int:
        """Begin up to 8 calls that are due, and say how many; they go on by themselves.

        None while the sensor is switched off. Raises psycopg.OperationalError and PoolTimeout where
        the database is away.
        """
        if len(self._calls) >= _MOST_CALLS:
            await asyncio.wait(self._calls, return_when=asyncio.FIRST_COMPLETED)
        while True:
            full = self._full()
            begun = await self._begin(full)
            # There may be more for those that have their share.
            if begun or not full or not await self._has_room(full):
                return begun

    async def _has_room(self, full: Collection[TenantId]) -> bool:
        """Whether one of these tenants soon has room for a call; the others must not wait long."""
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                while set(full) <= set(self._full()):
                    await asyncio.wait(self._calls, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            return False
        return True

    def _full(self) -> list[TenantId]:
        """The tenants that have their share of calls under way."""
        counts = Counter(self._calls.values())
        return [tenant for tenant, calls in counts.items() if calls >= _SHARE]

    async def _begin(self, full: Collection[TenantId]) -> int:
        calls = await self._claim(full)
        for call in calls:
            task = asyncio.create_task(self._call(call))
            self._calls[task] = call.notice.tenant
            task.add_done_callback(self._calls.pop)
        return len(calls)

    async def _claim(self, full: Collection[TenantId]) -> list[_Call]:
        values = {
            "lane": "url",
            "slices": self._instigator.slices,
            "full": list(full),
            "limit": min(_SHARE, _MOST_CALLS - len(self._calls)),
            "lease_seconds": _LEASE_SECONDS,
        }
        calls: list[_Call] = []
        async with self._pool.connection() as connection, connection.transaction():
            if not await self._instigator.is_on(connection):
                return []
            cursor = await connection.execute(CLAIM_CALLS, values, prepare=True)
            for row in await cursor.fetchall():
                notice, notify = Notice.of(row), None
                if notice.run is not None:
                    entry = await self._entries.get(
                        connection, notice.tenant, notice.run, notice.entry
                    )
                    notify = entry.notify
                calls.append(_Call(notice, row["attempts"], notify))
        return calls

    async def _call(self, call: _Call) -> None:
        """Make the call and write down what came of it."""
        try:
            answer = await self._answer(call)
        except CallFailed as error:
            answer = Answer(str(error), is_final=False)
        except GraphwrightError as error:  # of the secret store
            answer = Answer(error.message, is_final=False)
        except Exception:
            _log.exception("notice %s cannot be sent", call.notice.id)
            answer = Answer("an internal fault, which the dispatcher's log has", is_final=False)
        try:
            await self._write(call, answer)
        except (psycopg.Error, PoolTimeout) as error:
            _log.warning("notice %s is sent once more: %s", call.notice.id, error)

    async def _answer(self, call: _Call) -> Answer:
        """Raises :class:`CallFailed` where there is none."""
        notice, notify = call.notice, call.notify
        if notice.run is None or notify is None:
            return Answer("the run that has ended was removed")
        assert notify.url is not None
        assert notify.secret is not None
        secrets = await self._secrets.valid(notice.tenant, notify.secret)
        if not secrets:
            raise CallFailed(f"there is no secret {notify.secret}")
        body, now = body_of(notice, notice.run, self._api_url), datetime.now(UTC)
        response = await self._post(notify.url, headers_of(notice.id, body, secrets, now), body)
        return answer_of(response, now)

    async def _post(self, url: str, headers: dict[str, str], body: str) -> httpx.Response:
        """The answer, of which only the head is read: the rest is nothing to us.

        Raises :class:`CallFailed`.
        """
        try:
            async with (
                asyncio.timeout(_CALL_SECONDS),
                # One for each call, for it keeps cookies, and tenants share receivers.
                httpx.AsyncClient(
                    transport=CheckedTransport(self._allows),
                    timeout=None,  # noqa: S113 - asyncio.timeout bounds the whole
                    follow_redirects=False,
                ) as client,
                client.stream("POST", url, headers=headers, content=body.encode()) as response,
            ):
                return response
        except AddressRefused:
            raise CallFailed("the receiver is not on the public internet") from None
        except TimeoutError:
            raise CallFailed(f"no answer within {_CALL_SECONDS:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CallFailed(f"no answer: {type(error).__name__}") from None

    async def _write(self, call: _Call, answer: Answer) -> None:
        delay = delay_seconds(call.attempt, answer, random.random())  # noqa: S311 - no secret
        if answer.reason and delay is None:
            _log.warning("notice %s is given up: %s", call.notice.id, answer.reason)
        failed = "rejected" if delay is None else "pending"
        values = {
            "tenant": call.notice.tenant,
            "run_id": call.notice.run_id,
            "entry": call.notice.entry,
            "attempts": call.attempt,
            "status": failed if answer.reason else "delivered",
            "delay_seconds": delay or 0.0,
            "reason": answer.reason or None,
        }
        async with self._pool.connection() as connection:
            await connection.execute(ANSWERED, values, prepare=True)
