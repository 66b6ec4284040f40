"""What routes ask for: the application's collaborators, and who calls.

    router = api_router("/api/v1", "runs", 401, 403, 503)

    @router.get("/runs")
    async def list_runs(
        services: Annotated[Services, Depends(services)],
        caller: Annotated[Principal, Depends(require("runs:read"))],
    ) -> RunPage: ...

The dependencies are coroutines, so that FastAPI does not send them through its thread pool.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, TypeAlias, cast

from fastapi import Path, Query
from fastapi.security import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocket

from dynamic_jobs.creating.launching import RunCreator
from dynamic_jobs.executing.outputs import OutputStore
from dynamic_jobs.reading.event_log import run_id_of
from dynamic_jobs.reading.runs import RunStore
from dynamic_jobs.storage import EventWriter
from foundation.database import AsyncPool
from foundation.errors import Forbidden
from foundation.redis import AsyncRedis
from foundation.secret_store import SecretStore
from foundation.settings import Limits, Settings
from foundation.tenant_pool import BlockingTenantPool, TenantPool
from graph_defs.catalogue import Catalogue
from graph_defs.drafts import DraftStore
from graph_defs.expressions import Evaluator
from graph_defs.published_cache import PublishedCache
from graph_defs.store import GraphStore
from graph_defs.trigger_store import TriggerStore
from live_api.audit_log import AuditLog
from live_api.edge.callers import caller_of
from live_api.edge.rate_limits import RateLimits
from live_api.identity import Principal, Scope, Verifier
from live_api.identity.services import Identity
from live_api.streams.services import Streams
from schedules.backfills import BackfillStore
from sensors.deliveries import DeliveryStore
from sensors.notice_list import NoticeStore

ATTEMPTED = "attempted"
"""Where it has whose API key or session a login or refresh was about, good or refused."""

GraphPath: TypeAlias = Annotated[str, Path(description="The graph's id or name.")]
RunPath: TypeAlias = Annotated[str, Path(description="The run's id.")]
NodePath: TypeAlias = Annotated[str, Path(description="The node's id in the graph.")]


@dataclass(frozen=True, slots=True)
class Services:
    """The collaborators of one application, alive between its start and its end."""

    settings: Settings
    limits: Limits
    verifier: Verifier
    identity: Identity
    audit: AuditLog
    pool: AsyncPool
    """For what concerns many tenants, or none."""
    tenant_pool: TenantPool
    pool_by_key: TenantPool
    """For single rows, which are found by their keys."""
    blocking_pool: BlockingTenantPool
    """For what runs in a thread: ``await asyncio.to_thread(…)``."""
    redis: AsyncRedis
    rates: RateLimits
    catalogue: Catalogue
    evaluator: Evaluator
    store: GraphStore
    drafts: DraftStore
    published: PublishedCache
    secrets: SecretStore
    triggers: TriggerStore
    deliveries: DeliveryStore
    backfills: BackfillStore
    notices: NoticeStore
    creator: RunCreator
    runs: RunStore
    outputs: OutputStore
    streams: Streams
    writer: EventWriter
    """Dagster's event log, for what the API itself has to write there: cancelling."""


async def services(connection: HTTPConnection) -> Services:
    """The application's collaborators, for an HTTP or a WebSocket route."""
    return cast("Services", connection.app.state.services)


# For the OpenAPI document: ``Authenticate`` has verified the token before.
_bearer = HTTPBearer(
    bearerFormat="JWT",
    scheme_name="token",
    description="A token from `graphwright token --tenant TENANT`.",
)


class RequireScope(SecurityBase):
    """A dependency that gives who calls, by the ``Authorization: Bearer`` header.

    Raises Unauthenticated, and Forbidden where the token lacks ``scope``. One dependency rather
    than three, because FastAPI takes some 30 µs for each.
    """

    model = _bearer.model
    scheme_name = _bearer.scheme_name

    def __init__(self, scope: Scope) -> None:
        self._scope: Scope = scope

    async def __call__(self, request: Request) -> Principal:
        caller = caller_of(request)
        if caller.run_id is not None:
            raise _stream_token_only()
        caller.require(self._scope)
        return caller


class _RequireStream(SecurityBase):
    """A dependency of a run's stream, HTTP or WebSocket: as :class:`RequireScope`, but it takes a
    stream token of that run too, and then also as ``?token=``; a WebSocket's token may come as
    subprotocol ``bearer.<token>`` as well, since browsers cannot set the header.
    """

    model = _bearer.model
    scheme_name = _bearer.scheme_name

    def __init__(self, scope: Scope) -> None:
        self._scope: Scope = scope

    async def __call__(
        self,
        connection: HTTPConnection,
        _token: Annotated[
            str, Query(alias="token", description="A stream token of this run, and no other.")
        ] = "",
    ) -> Principal:
        caller = caller_of(connection)
        mine = connection.path_params.get("run_id", "")
        if caller.run_id is not None and caller.run_id != run_id_of(mine):
            raise _stream_token_only()
        caller.require(self._scope)
        return caller


def require(scope: Scope) -> RequireScope:
    """A dependency that gives the caller, and raises Forbidden where its token lacks ``scope``."""
    return RequireScope(scope)


def require_stream(scope: Scope) -> Callable[..., Awaitable[Principal]]:
    """``require`` for the streams of one run, over HTTP or a WebSocket; stream tokens are good too.

    Who accepts a socket must answer with the subprotocol that carries the token
    (``bearer_subprotocol``), or the browser closes it.
    """
    return _RequireStream(scope)


def require_websocket(scope: Scope) -> Callable[[WebSocket], Awaitable[Principal]]:
    """``require`` for a WebSocket of no single run: the header, or the subprotocol."""

    async def allowed(websocket: WebSocket) -> Principal:
        caller = caller_of(websocket)
        if caller.run_id is not None:
            raise _stream_token_only()
        caller.require(scope)
        return caller

    return allowed


def _stream_token_only() -> Forbidden:
    return Forbidden(
        "a stream token is good for the events of its run and for nothing else",
        hint="Send an access token.",
    )
