"""What an installation stands on: PostgreSQL, Redis, the object store, the master key."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, LiteralString

import psycopg

from foundation.database import Connection, connect, migration_names
from foundation.errors import GraphwrightError
from foundation.ids import new_id
from foundation.object_store import object_store as open_store
from foundation.redis import goes_in_clear, sync_redis
from foundation.schema import Applied
from foundation.secret_store import master_keys
from foundation.settings import Settings
from graphwright.doctor.finding import Finding, ok, skipped, warning, wrong

_OLDEST: Final = 15
_SKEW_SECONDS: Final = 2.0
_FULL: Final = 0.9

SERVER: Final[LiteralString] = """
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int / 10000 AS major,
       clock_timestamp() AS now,
       current_setting('max_connections')::int AS most,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,
       current_setting('fsync') AS fsync,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit
"""
MASTER_KEYS: Final[LiteralString] = "SELECT DISTINCT master_key FROM graphwright.data_keys"


def reached(settings: Settings) -> Connection:
    """A connection to the database. Raises psycopg.OperationalError after some seconds."""
    separator = "&" if "?" in settings.database_url else "?"
    return connect(f"{settings.database_url}{separator}connect_timeout=3")


def database(settings: Settings) -> Iterator[Finding]:
    """It answers, is new enough, keeps what it commits, and has the schema of this release."""
    if not settings.database_url:
        mend = "`graphwright up` starts a stack; GRAPHWRIGHT_DATABASE_URL names another's database."
        yield wrong("database", f"no stack runs in {settings.state}", mend)
        return
    try:
        with reached(settings) as connection:
            asked = time.time()
            server = connection.execute(SERVER).fetchone()
            assert server is not None
            yield from _server(server["version"], server["major"])
            yield from _clock(server["now"], asked, time.time())
            yield from _connections(server["used"], server["most"])
            yield from _durability(server)
            yield from _schema(connection)
    except psycopg.OperationalError as error:
        mend = "Start PostgreSQL, or mend GRAPHWRIGHT_DATABASE_URL."
        yield wrong("database", f"it cannot be reached: {error}".strip(), mend)


def _server(version: str, major: int) -> Iterator[Finding]:
    if major < _OLDEST:
        yield wrong("database", f"PostgreSQL is {version}", f"Use {_OLDEST} or later.")
    else:
        yield ok("database", f"PostgreSQL {version}")


def _clock(theirs: datetime, asked: float, answered: float) -> Iterator[Finding]:
    now = theirs.astimezone(UTC).timestamp()
    # Its clock was read at some time between the two.
    skew = max(asked - now, now - answered, 0.0)
    if skew > _SKEW_SECONDS:
        says = f"it and this machine differ by {skew:.1f} s"
        yield wrong("clock", says, "Keep both by NTP: tokens, timers and leases go by the clock.")
    else:
        yield ok("clock", f"within {max(skew, answered - asked):.3f} s of the database's")


def _connections(used: int, most: int) -> Iterator[Finding]:
    if used > most * _FULL:
        says = f"{used} of {most} connections are in use"
        mend = "Raise max_connections, or run fewer processes: each keeps up to some twenty."
        yield warning("connections", says, mend)
    else:
        yield ok("connections", f"{used} of {most}")


def _durability(server: dict[str, str]) -> Iterator[Finding]:
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        if server[name] == "off":
            mend = f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();"
            yield warning("durability", f"{name} is off: a crash may lose what was done", mend)


def _schema(connection: Connection) -> Iterator[Finding]:
    applied = Applied.of(connection)
    if applied.lacks:
        says = f"the database lacks {applied.lacks}"
        yield wrong("migrations", says, "Run `graphwright migrate`.")
    elif applied.later:
        says = f"the database is of a later release: {applied.later}"
        yield wrong("migrations", says, "Update this installation.")
    else:
        yield ok("migrations", f"all {len(migration_names())}, and Dagster's")


def redis(settings: Settings) -> Iterator[Finding]:
    """It answers; nothing is lost without it."""
    without = "live views are slower and rate limits count in each process alone"
    if not settings.redis_url:
        if settings.database_url:
            yield warning("redis", f"none is named: {without}", "Set GRAPHWRIGHT_REDIS_URL.")
        else:
            yield skipped("redis", "no stack runs")
        return
    import redis as library

    if goes_in_clear(settings.redis_url):
        says = "passwords and live events go to it in clear"
        yield warning("redis", says, "Use `rediss://` in GRAPHWRIGHT_REDIS_URL.")
    try:
        with sync_redis(settings.redis_url) as client:
            began = time.perf_counter()
            client.ping()  # pyright: ignore[reportUnknownMemberType]
            yield ok("redis", f"answers in {(time.perf_counter() - began) * 1000:.1f} ms")
    except (library.RedisError, OSError) as error:
        mend = "Start it, or mend GRAPHWRIGHT_REDIS_URL."
        yield warning("redis", f"it cannot be reached, {without}: {error}", mend)


def master_key(settings: Settings) -> Iterator[Finding]:
    """Every master key that secrets are encrypted under can be had."""
    if not settings.database_url:
        yield skipped("master key", "no stack runs")
        return
    try:
        with reached(settings) as connection:
            used = [row["master_key"] for row in connection.execute(MASTER_KEYS)]
    except psycopg.OperationalError:
        yield skipped("master key", "the database could not be asked which are in use")
        return
    path = settings.master_key_file or settings.state / "master.key"
    if not used:
        yield ok("master key", "no secret is stored yet")
        return
    keys = master_keys(settings)
    try:
        lost = [each for each in used if not keys.holds(each)]
    except GraphwrightError as error:
        yield wrong("master key", error.message, error.hint)
        return
    finally:
        keys.close()
    if lost:
        says = f"{path} lacks {', '.join(lost)}, under which secrets are encrypted"
        mend = "Put it back from a copy, or set those secrets anew."
        yield wrong("master key", says, mend)
    else:
        yield ok("master key", f"{path} holds {len(used)} in use")


def object_store(settings: Settings) -> Iterator[Finding]:
    """A value can be written, read and removed."""
    if not settings.database_url and not settings.object_store:
        yield skipped("object store", "no stack runs")
        return
    store, key, content = open_store(settings.objects_url), f"doctor/{new_id()}", b"graphwright"
    shown = settings.objects_url.partition("?")[0]
    try:
        store.put(key, content)
        read = store.get(key)
        store.delete([key])
    except GraphwrightError as error:
        mend = error.hint or "Mend GRAPHWRIGHT_OBJECT_STORE, or this process's rights there."
        yield wrong("object store", f"{shown}: {error.message}", mend)
        return
    finally:
        store.close()
    if read != content:
        yield wrong("object store", f"{shown} gives back another value than was put there")
    else:
        yield ok("object store", f"{shown} can be written and read")
