"""What the routes of live streams work with."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from dynamic_jobs.reading.stream import StreamHub
from foundation.redis import AsyncRedis
from live_api.streams.clients import Clients
from live_api.streams.presence import Presence


@dataclass(frozen=True, slots=True)
class Streams:
    """``hub`` has the events, ``clients`` the connections, ``presence`` says who watches what."""

    hub: StreamHub
    clients: Clients
    presence: Presence


@asynccontextmanager
async def open_streams(hub: StreamHub, redis: AsyncRedis) -> AsyncGenerator[Streams]:
    async with Clients() as clients, Presence(redis) as presence:
        yield Streams(hub, clients, presence)
