"""What routes ask for: the application's collaborators, and who calls.

    router = APIRouter()

    @router.get("/runs")
    async def list_runs(
        services: Annotated[Services, Depends(services)],
        caller: Annotated[Principal, Depends(require("runs:read"))],
    ) -> RunPage: ...

The dependencies are coroutines, so that FastAPI does not send them through its thread pool.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from fastapi.security import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocket

from dynamic_jobs.creating.launching import RunCreator
from dynamic_jobs.reading.runs import RunStore
from dynamic_jobs.reading.stream import StreamHub
from dynamic_jobs.storage import EventWriter
from foundation.database import AsyncPool, Pool
from foundation.errors import Unauthenticated
from foundation.redis import AsyncRedis
from foundation.settings import Limits, Settings
from graph_defs.catalogue import Catalogue
from graph_defs.expressions import Evaluator
from graph_defs.store import GraphStore
from live_api.auth import Principal, Scope, Verifier

_SUBPROTOCOL = "bearer."


@dataclass(frozen=True, slots=True)
class Services:
    """The collaborators of one application, alive between its start and its end."""

    settings: Settings
    limits: Limits
    verifier: Verifier
    pool: AsyncPool
    blocking_pool: Pool
    """For what runs in a thread: ``await asyncio.to_thread(…)``."""
    redis: AsyncRedis
    catalogue: Catalogue
    evaluator: Evaluator
    store: GraphStore
    creator: RunCreator
    runs: RunStore
    hub: StreamHub
    writer: EventWriter
    """Dagster's event log, for what the API itself has to write there: cancelling."""


async def services(connection: HTTPConnection) -> Services:
    """The application's collaborators, for an HTTP or a WebSocket route."""
    return cast("Services", connection.app.state.services)


_bearer = HTTPBearer(
    bearerFormat="JWT",
    scheme_name="token",
    description="A token from `graphwright token --tenant TENANT`.",
    auto_error=False,  # our own problem documents instead
)


class _Require(SecurityBase):
    """A dependency that gives who calls, by the ``Authorization: Bearer`` header.

    Raises Unauthenticated, and Forbidden where the token lacks ``scope``. One dependency rather
    than three, because FastAPI takes some 30 µs for each.
    """

    model = _bearer.model
    scheme_name = _bearer.scheme_name

    def __init__(self, scope: Scope) -> None:
        self._scope: Scope = scope

    async def __call__(self, request: Request) -> Principal:
        credentials = await _bearer(request)
        if credentials is None:
            raise _no_token()
        caller = (await services(request)).verifier.verify(credentials.credentials)
        caller.require(self._scope)
        return caller


def require(scope: Scope) -> Callable[[Request], Awaitable[Principal]]:
    """A dependency that gives the caller, and raises Forbidden where its token lacks ``scope``."""
    return _Require(scope)


def require_websocket(scope: Scope) -> Callable[..., Awaitable[Principal]]:
    """``require`` for a WebSocket: the header, or the subprotocol ``bearer.<token>``.

    Browsers cannot set the header. Who accepts the socket must answer with that subprotocol
    (``bearer_subprotocol``), or the browser closes it.
    """

    async def allowed(websocket: WebSocket) -> Principal:
        caller = (await services(websocket)).verifier.verify(_websocket_token(websocket))
        caller.require(scope)
        return caller

    return allowed


def bearer_subprotocol(websocket: WebSocket) -> str | None:
    """The subprotocol that carries the token, for ``websocket.accept(subprotocol=…)``."""
    offered = cast("list[str]", websocket.scope.get("subprotocols", []))
    return next((name for name in offered if name.startswith(_SUBPROTOCOL)), None)


def _websocket_token(websocket: WebSocket) -> str:
    kind, _, token = websocket.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    if subprotocol := bearer_subprotocol(websocket):
        return subprotocol.removeprefix(_SUBPROTOCOL)
    raise _no_token()


def _no_token() -> Unauthenticated:
    return Unauthenticated(
        "this needs a token",
        hint="Send `Authorization: Bearer TOKEN`; `graphwright token --tenant TENANT` prints one.",
    )
