"""What the command line does without the API: the database, and tokens signed with the key of the
state folder."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager

import psycopg

from foundation.database import Connection, async_connect, connect
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


def database_of(settings: Settings) -> str:
    """The URL of the installation's database. Raises Unavailable where none is known."""
    if not settings.database_url:
        raise Unavailable(
            f"no stack runs in {settings.state}",
            hint="`graphwright up` starts one; GRAPHWRIGHT_DATABASE_URL names another's database.",
        )
    return settings.database_url


@contextmanager
def database(settings: Settings) -> Generator[Connection]:
    """A connection to the installation's database. Raises Unavailable."""
    with reaching_database(), connect(database_of(settings)) as connection:
        yield connection


async def tenant_token(
    settings: Settings,
    tenant: str,
    *,
    subject: str = "cli",
    role: str | None = None,
    scopes: Iterable[str] | None = None,
    hours: float,
) -> str:
    """A bearer token for ``tenant``, which is made if missing.

    Its scopes are those of the ``role``, or all; of these only the ``scopes``, if any are given.

    Raises Unavailable when no database is known or it does not answer, Invalid for a bad name, an
    unknown role or an unknown scope.
    """
    from graph_defs.statements import ENSURE_TENANT
    from live_api.identity import (
        ROLES,
        SCOPES,
        check_scopes,
        check_tenant,
        is_role,
        issue_token,
        scopes_of,
        signing_key,
    )

    if role is not None and not is_role(role):
        fault = Fault("/role", "unknown_role", f"{role!r} is no role", f"Use {', '.join(ROLES)}.")
        raise Invalid("the token cannot be made", [fault])
    narrowed = None if scopes is None else check_scopes(scopes)
    allowed = scopes_of("admin" if role is None else role, narrowed)
    url, name = database_of(settings), check_tenant(tenant)
    with reaching_database():
        async with await async_connect(url) as connection:
            await connection.execute(ENSURE_TENANT, {"tenant": name})
    asked = [scope for scope in SCOPES if scope in allowed]
    return issue_token(
        signing_key(settings.state), name, subject, asked, hours * _HOUR_SECONDS, role
    )
