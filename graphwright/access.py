"""Tokens for the command line and the local stack, signed with the key of the state folder."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager

import psycopg

from foundation.database import async_pool
from foundation.errors import Fault, Invalid, Unavailable
from foundation.settings import Settings

_HOUR_SECONDS = 3600


@contextmanager
def reaching_database() -> Generator[None]:
    """Raise Unavailable where PostgreSQL cannot be reached."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise Unavailable(f"the database cannot be reached: {error}".strip()) from error


async def tenant_token(
    settings: Settings,
    tenant: str,
    *,
    subject: str = "cli",
    scopes: Iterable[str] | None = None,
    hours: float,
) -> str:
    """A bearer token for ``tenant``, which is made if missing; ``scopes`` None means all.

    Raises Unavailable when no database is known or it does not answer, Invalid for a bad name or
    an unknown scope.
    """
    from graph_defs.store import GraphStore
    from live_api.auth import SCOPES, check_tenant, issue_token, signing_key

    asked = SCOPES if scopes is None else tuple(scopes)
    faults = [
        Fault("/scopes", "unknown_scope", f"{scope!r} is no scope", f"Use {', '.join(SCOPES)}.")
        for scope in asked
        if scope not in SCOPES
    ]
    if faults:
        raise Invalid("the token cannot be made", faults)
    if not settings.database_url:
        raise Unavailable(
            f"no stack runs in {settings.state}",
            hint="`graphwright up` starts one; GRAPHWRIGHT_DATABASE_URL names another's database.",
        )
    name = check_tenant(tenant)
    with reaching_database():
        async with async_pool(settings.database_url, size=1) as pool:
            await GraphStore(pool).ensure_tenant(name)
    return issue_token(signing_key(settings.state), name, subject, asked, hours * _HOUR_SECONDS)
