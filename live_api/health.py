"""Is this process alive, and can it serve? Open to all, and silent about everything else."""

import asyncio
from typing import Annotated, Literal

import redis
from fastapi import Depends
from pydantic import BaseModel, Field

from foundation.redis import AsyncRedis
from live_api.dependencies import Services, services
from live_api.problems import problems
from live_api.readiness import TIMEOUT_SECONDS, check_database, check_sessions
from live_api.routing import api_router

router = api_router("", "health")


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """The process can serve requests."""

    status: Literal["ready"] = "ready"
    redis: Literal["ok", "away"] = Field(
        description="While Redis is away live views are slower; nothing is lost."
    )


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> Alive:
    """Answers as long as the event loop turns; asks nothing of PostgreSQL or Redis."""
    return Alive()


@router.get("/readyz", summary="Can the process serve?", responses=problems(503))
async def readyz(parts: Annotated[Services, Depends(services)]) -> Ready:
    """Ready when PostgreSQL answers, has our schema, and there are sessions of it to use.

    Redis is only fast: without it everything works and live views are slower, so a process stays
    ready, and a fault of Redis does not take the whole API away.
    """
    *_, redis_answers = await asyncio.gather(
        check_database(parts.pool),
        check_sessions(parts.tenant_pool),
        check_sessions(parts.pool_by_key),
        _answers(parts.redis),
    )
    return Ready(redis="ok" if redis_answers else "away")


async def _answers(client: AsyncRedis) -> bool:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return bool(await client.ping())  # pyright: ignore[reportUnknownMemberType]
    except (TimeoutError, redis.RedisError, OSError):
        return False
