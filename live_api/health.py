"""Is this process alive, and can it serve? Open to all, and silent about everything else."""

import asyncio
from typing import Annotated, Literal, LiteralString

import psycopg
import redis
from fastapi import APIRouter, Depends
from psycopg_pool import PoolTimeout
from pydantic import BaseModel, Field

from foundation.database import AsyncPool, migration_names
from foundation.errors import Unavailable
from foundation.redis import AsyncRedis
from live_api.dependencies import Services, services
from live_api.problems import problems

router = APIRouter(tags=["health"])

_TIMEOUT_SECONDS = 2.0

APPLIED: LiteralString = "SELECT name FROM graphwright.migrations"


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
    """Ready when PostgreSQL answers and has our schema.

    Redis is only fast: without it everything works and live views are slower, so a process stays
    ready, and a fault of Redis does not take the whole API away.
    """
    _, redis_answers = await asyncio.gather(_check_database(parts.pool), _answers(parts.redis))
    return Ready(redis="ok" if redis_answers else "away")


async def _check_database(pool: AsyncPool) -> None:
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS), pool.connection() as connection:
            rows = await (await connection.execute(APPLIED)).fetchall()
    except psycopg.errors.UndefinedTable:
        rows = []
    except (TimeoutError, PoolTimeout, psycopg.OperationalError) as error:
        raise Unavailable("PostgreSQL does not answer") from error
    if missing := set(migration_names()) - {row["name"] for row in rows}:
        raise Unavailable(
            f"the database lacks the migrations {', '.join(sorted(missing))}",
            hint="Run `graphwright migrate`.",
        )


async def _answers(client: AsyncRedis) -> bool:
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            return bool(await client.ping())  # pyright: ignore[reportUnknownMemberType]
    except (TimeoutError, redis.RedisError, OSError):
        return False
