"""The application: routes, middleware, and what lives from its start to its end."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

import node_types
from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.creating.launching import RunCreator
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.reading.runs import RunStore
from dynamic_jobs.reading.stream import StreamHub
from dynamic_jobs.storage import GraphwrightStorage
from foundation.database import async_pool, pool
from foundation.redis import async_redis
from foundation.settings import Limits, Settings
from graph_defs.catalogue import Catalogue
from graph_defs.store import GraphStore
from live_api import graphs, health, runs, streams
from live_api.auth import Verifier, signing_key
from live_api.dependencies import Services
from live_api.middleware import BodyLimit, RequestId
from live_api.openapi import describe
from live_api.problems import add_problem_handlers

_CONNECTIONS = 16
_GZIP_FROM_BYTES = 1_024
_GZIP_LEVEL = 5  # 9 takes three times as long and saves two per cent
_ENVELOPE_BYTES = 64 * 2**10  # what a body may hold beside its params


def create_app(settings: Settings, limits: Limits) -> FastAPI:
    """The API as an ASGI application. It connects when it starts, and not before."""
    longest = max(limits.max_document_bytes, limits.max_params_bytes + _ENVELOPE_BYTES)
    app = FastAPI(
        title="Graphwright",
        version=version("graphwright"),
        description="Post graphs, run them, watch them live.",
        lifespan=_lifespan(settings, limits),
        redirect_slashes=False,
        redoc_url=None,
        middleware=[
            Middleware(RequestId),
            Middleware(GZipMiddleware, minimum_size=_GZIP_FROM_BYTES, compresslevel=_GZIP_LEVEL),
            Middleware(BodyLimit, limit=longest),
        ],
    )
    for part in (graphs, runs, streams, health):
        app.include_router(part.router)
    add_problem_handlers(app)
    app.openapi = _once(partial(describe, app))
    return app


Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def _lifespan(settings: Settings, limits: Limits) -> Lifespan:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with open_services(settings, limits) as services:
            app.state.services = services
            yield

    return lifespan


@asynccontextmanager
async def open_services(settings: Settings, limits: Limits) -> AsyncGenerator[Services]:
    """Everything that routes need, closed in the opposite order at the end.

    A database that is away does not keep the process from starting: it is then not ready.
    """
    key = await asyncio.to_thread(signing_key, settings.state)
    catalogue = Catalogue.from_packages(node_types)
    async with AsyncExitStack() as stack:
        connections = async_pool(settings.database_url, size=_CONNECTIONS)
        await connections.open(wait=False)
        stack.push_async_callback(connections.close)
        blocking = pool(settings.database_url)
        blocking.open(wait=False)
        stack.push_async_callback(asyncio.to_thread, blocking.close)
        redis = async_redis(settings.redis_url)
        stack.push_async_callback(redis.aclose)
        storage = GraphwrightStorage(
            settings.database_url, settings.redis_url, should_autocreate_tables=False
        )
        stack.push_async_callback(asyncio.to_thread, storage.event_log_storage.dispose)
        runtime = stack.enter_context(NodeRuntime(settings, limits, catalogue))
        creator = RunCreator(connections, storage, Compiler(runtime), runtime)
        stack.push_async_callback(creator.close)
        hub = await stack.enter_async_context(StreamHub(connections, redis))
        yield Services(
            settings=settings,
            limits=limits,
            verifier=Verifier(key),
            pool=connections,
            blocking_pool=blocking,
            redis=redis,
            catalogue=catalogue,
            evaluator=runtime.evaluator,
            store=GraphStore(connections),
            creator=creator,
            runs=RunStore(connections),
            hub=hub,
            writer=storage.writer,
        )


def _once(make: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    made: dict[str, Any] = {}

    def kept() -> dict[str, Any]:
        if not made:
            made.update(make())
        return made

    return kept
