"""The two clients: the same resources, carried out at once or on an event loop."""

import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, Self

import httpx

from graphwright.client.access import Audit, Auth, Members, Secrets, Tenants, Tokens
from graphwright.client.asynchronous import Async
from graphwright.client.auth import TokenSource, auth_of
from graphwright.client.calls import Stream, given
from graphwright.client.graphs import Graphs, NodeTypes
from graphwright.client.resource import S
from graphwright.client.retrying import Retry
from graphwright.client.runs import Runs
from graphwright.client.sync import Sync
from graphwright.client.triggers import Backfills, Deliveries, Triggers
from graphwright.client.types import Event, RunStatus

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)
_RETRY = Retry()


class _Resources(Generic[S]):
    def __init__(self, transport: S) -> None:
        self._transport: S = transport
        self.graphs = Graphs(transport)
        self.node_types = NodeTypes(transport)
        self.runs = Runs(transport)
        self.triggers = Triggers(transport)
        self.backfills = Backfills(transport)
        self.deliveries = Deliveries(transport)
        self.secrets = Secrets(transport)
        self.auth = Auth(transport)
        self.tokens = Tokens(transport)
        self.members = Members(transport)
        self.tenants = Tenants(transport)
        self.audit = Audit(transport)


class Client(_Resources[Sync]):
    """The API at ``url``, as the one whom ``token`` or ``api_key`` stands for.

    ``token`` may be a function, which is asked for another one before the last one ends. Requests
    that are safe to repeat are, as ``retry`` says; one that starts a run is, too, since it carries
    an idempotency key. Once ``interrupted`` is set, the client waits for nothing any more.

    Every method raises Unavailable when the API cannot be reached, and the error of
    ``foundation.errors`` that stands for the status of its answer. Threads may share a client.
    """

    def __init__(
        self,
        url: str,
        token: TokenSource | None = None,
        *,
        api_key: str | None = None,
        retry: Retry = _RETRY,
        interrupted: threading.Event | None = None,
    ) -> None:
        self._http = httpx.Client(**_options(url, token, api_key))
        super().__init__(Sync(self._http, retry, interrupted or threading.Event()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def events(
        self,
        *,
        graph: str | None = None,
        status: RunStatus | Sequence[RunStatus] | None = None,
        type: str | Sequence[str] | None = None,  # noqa: A002
        label: dict[str, str] | None = None,
        after: str | None = None,
    ) -> Iterator[Event]:
        """The events of all runs of the tenant as they happen, without an end; of a graph, of runs
        of a status, of these types, of graphs with these labels."""
        return self._transport.events(_many(graph, status, type, label, after))


class AsyncClient(_Resources[Async]):
    """``Client`` for asyncio and trio: calls are awaited, lists and streams are asynchronous
    iterators. ``token`` may be a coroutine function, too."""

    def __init__(
        self,
        url: str,
        token: TokenSource | None = None,
        *,
        api_key: str | None = None,
        retry: Retry = _RETRY,
    ) -> None:
        self._http = httpx.AsyncClient(**_options(url, token, api_key))
        super().__init__(Async(self._http, retry))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    def events(
        self,
        *,
        graph: str | None = None,
        status: RunStatus | Sequence[RunStatus] | None = None,
        type: str | Sequence[str] | None = None,  # noqa: A002
        label: dict[str, str] | None = None,
        after: str | None = None,
    ) -> AsyncIterator[Event]:
        """As those of ``Client``."""
        return self._transport.events(_many(graph, status, type, label, after))


def _options(url: str, token: TokenSource | None, api_key: str | None) -> dict[str, Any]:
    base = f"{url.rstrip('/')}/api/v1"
    return {
        "base_url": base,
        "auth": auth_of(base, token, api_key),
        "headers": {"User-Agent": "graphwright"},
        "timeout": _TIMEOUT,
        "limits": _LIMITS,
        # Not through a proxy of the environment: the token is for this API alone.
        "trust_env": False,
    }


def _many(
    graph: str | None,
    status: RunStatus | Sequence[RunStatus] | None,
    type: str | Sequence[str] | None,  # noqa: A002
    label: dict[str, str] | None,
    after: str | None,
) -> Stream:
    return Stream("/events", given(graph=graph, status=status, type=type, label=label), after)
