"""The application: routes, middleware, and what lives from its start to its end."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware

import node_types
from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.creating.launching import RunCreator
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.reading.runs import RunStore
from dynamic_jobs.reading.stream import StreamHub
from dynamic_jobs.storage import GraphwrightStorage
from foundation.database import async_pool
from foundation.redis import async_redis
from foundation.secret_store import SecretStore, master_keys
from foundation.settings import Limits, Settings
from foundation.telemetry import health as well_being
from foundation.telemetry.serving import listener_of, serving
from foundation.telemetry.tracing import tracing
from foundation.tenant_pool import (
    BlockingTenantPool,
    TenantPool,
    blocking_tenant_sessions,
    tenant_sessions,
    tenant_sessions_by_key,
)
from graph_defs.catalogue import Catalogue
from graph_defs.drafts import DraftStore
from graph_defs.published_cache import PublishedCache
from graph_defs.store import GraphStore
from graph_defs.trigger_store import TriggerStore
from live_api import (
    audit_list,
    backfills,
    batches,
    control,
    deliveries,
    drafts,
    graphs,
    health,
    members,
    node_catalogue,
    notices,
    runs,
    secrets,
    sessions,
    stream_tokens,
    tenants,
    tokens,
    triggers,
    versions,
)
from live_api.audit import Audit
from live_api.audit_log import AuditLog
from live_api.dependencies import Services
from live_api.edge.addresses import proxies
from live_api.edge.bounds import bounds
from live_api.edge.callers import Authenticate
from live_api.edge.compression import compression
from live_api.edge.cors import cors
from live_api.edge.head import Head
from live_api.edge.headers import SecurityHeaders
from live_api.edge.rate_limits import RateLimit, RateLimits
from live_api.edge.shared_counters import SharedCounters
from live_api.identity import signing_key
from live_api.identity.services import open_identity
from live_api.middleware import BodyLimit, RequestId
from live_api.observing import Observe
from live_api.openapi import describe
from live_api.problems import add_problem_handlers, unforeseen
from live_api.reference import add_reference
from live_api.routing import add_routers
from live_api.streams import routes as stream_routes
from live_api.streams.services import open_streams
from schedules.backfills import BackfillStore
from sensors.deliveries import DeliveryStore
from sensors.notice_list import NoticeStore

_PARTS = (
    graphs, versions, drafts, node_catalogue, runs, batches, control, stream_routes, triggers,
    deliveries, backfills, notices, secrets, health, sessions, tokens, stream_tokens, members,
    tenants, audit_list,
)  # fmt: skip
_CONNECTIONS = 16
_OF_TENANTS = 12
_BY_KEY = 12


def create_app(settings: Settings, limits: Limits) -> FastAPI:
    """The API as an ASGI application. It connects when it starts, and not before."""
    app = FastAPI(
        title="Graphwright",
        version=version("graphwright"),
        lifespan=_lifespan(settings, limits),
        redirect_slashes=False,
        openapi_url=None,  # ``reference`` has it, and /docs
        middleware=[
            *proxies(settings.trusted_proxies),
            Middleware(RequestId),
            Middleware(Observe),
            Middleware(SecurityHeaders),
            *cors(settings.cors_origins),
            Middleware(Head),
            *compression(),
            Middleware(Authenticate),
            Middleware(RateLimit),
            Middleware(Audit),
            Middleware(BodyLimit, bound_of=bounds(limits)),
            unforeseen(),
        ],
    )
    add_routers(app, *(part.router for part in _PARTS))
    add_reference(app)
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
        sessions_of_tenants = tenant_sessions(settings.database_url, size=_OF_TENANTS)
        await sessions_of_tenants.open(wait=False)
        stack.push_async_callback(sessions_of_tenants.close)
        tenant_pool = TenantPool(sessions_of_tenants)
        sessions_by_key = tenant_sessions_by_key(settings.database_url, size=_BY_KEY)
        await sessions_by_key.open(wait=False)
        stack.push_async_callback(sessions_by_key.close)
        by_key = TenantPool(sessions_by_key)
        blocking = blocking_tenant_sessions(settings.database_url)
        blocking.open(wait=False)
        stack.push_async_callback(asyncio.to_thread, blocking.close)
        keys = master_keys(settings)
        stack.push_async_callback(asyncio.to_thread, keys.close)
        redis = async_redis(settings.redis_url)
        stack.push_async_callback(redis.aclose)
        identity = await stack.enter_async_context(
            open_identity(settings, key, connections, tenant_pool)
        )
        audit = AuditLog(connections, tenant_pool)
        stack.push_async_callback(audit.close)
        rates = RateLimits(
            settings.requests_per_minute,
            settings.requests_per_minute_address,
            tenants=await stack.enter_async_context(SharedCounters(redis)),
            addresses=await stack.enter_async_context(SharedCounters(redis)),
        )
        storage = GraphwrightStorage(
            settings.database_url, settings.redis_url, should_autocreate_tables=False
        )
        stack.push_async_callback(asyncio.to_thread, storage.event_log_storage.dispose)
        traced = stack.enter_context(tracing(settings, "api"))
        runtime = stack.enter_context(NodeRuntime(settings, limits, catalogue, traced))
        creator = RunCreator(connections, tenant_pool, storage, Compiler(runtime), runtime)
        stack.push_async_callback(creator.close)
        hub = await stack.enter_async_context(StreamHub(connections, tenant_pool, redis))
        streams = await stack.enter_async_context(open_streams(hub, redis))
        loop = asyncio.get_running_loop()
        stack.enter_context(
            serving(
                listener_of(settings),
                alive=[well_being.event_loop(loop)],
                ready=[
                    well_being.database(settings),
                    well_being.sessions("sessions", connections, loop),
                    well_being.sessions("tenant_sessions", sessions_of_tenants, loop),
                    well_being.sessions("sessions_by_key", sessions_by_key, loop),
                    well_being.redis_server(settings),
                ],
                pools={
                    "api": connections,
                    "tenant": sessions_of_tenants,
                    "by_key": sessions_by_key,
                    "blocking": blocking,
                },
            )
        )
        yield Services(
            settings=settings,
            limits=limits,
            verifier=identity.verifier,
            identity=identity,
            audit=audit,
            pool=connections,
            tenant_pool=tenant_pool,
            pool_by_key=by_key,
            blocking_pool=BlockingTenantPool(blocking),
            redis=redis,
            rates=rates,
            catalogue=catalogue,
            evaluator=runtime.evaluator,
            store=GraphStore(tenant_pool, by_key),
            drafts=DraftStore(tenant_pool),
            published=PublishedCache(redis),
            secrets=SecretStore(tenant_pool, keys),
            triggers=TriggerStore(tenant_pool),
            deliveries=DeliveryStore(tenant_pool),
            backfills=BackfillStore(tenant_pool),
            notices=NoticeStore(tenant_pool),
            creator=creator,
            runs=RunStore(tenant_pool, by_key),
            outputs=runtime.outputs,
            streams=streams,
            writer=storage.writer,
        )


def _once(make: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    made: dict[str, Any] = {}

    def kept() -> dict[str, Any]:
        if not made:
            made.update(make())
        return made

    return kept
