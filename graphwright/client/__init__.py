"""The HTTP API from Python: ``Client`` and ``AsyncClient``. docs/client.md shows them at work."""

from graphwright.client.clients import AsyncClient, Client
from graphwright.client.errors import Changed, RequestRefused
from graphwright.client.retrying import Retry
from graphwright.client.tail import TERMINAL

__all__ = [
    "TERMINAL",
    "AsyncClient",
    "Changed",
    "Client",
    "RequestRefused",
    "Retry",
]
