"""Tokens for the command line and the local stack, signed with the key of the state folder."""

from collections.abc import Iterable

from foundation.database import async_pool
from foundation.errors import Fault, Invalid, Unavailable
from foundation.settings import Settings

_HOUR_SECONDS = 3600


async def tenant_token(
    settings: Settings,
    tenant: str,
    *,
    subject: str = "cli",
    scopes: Iterable[str] | None = None,
    hours: float,
) -> str:
    """A bearer token for ``tenant``, which is made where it is missing; None means every scope.

    Raises Unavailable when no database is known, Invalid for a bad name or an unknown scope.
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
    async with async_pool(settings.database_url, size=1) as pool:
        await GraphStore(pool).ensure_tenant(name)
    return issue_token(signing_key(settings.state), name, subject, asked, hours * _HOUR_SECONDS)
