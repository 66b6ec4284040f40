"""The processes of an installation: who answers, and who has been heard of lately."""

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, LiteralString

import httpx
import psycopg

from dynamic_jobs.queueing.waking import DISPATCH_CHANNEL
from dynamic_jobs.workers.roster import workers as roster
from foundation.settings import Settings
from graphwright.doctor.backends import reached
from graphwright.doctor.finding import Finding, ok, skipped, warning, wrong
from graphwright.stackfile import read_stack

_SECONDS: Final = 5.0
_DAEMON_SECONDS: Final = 120.0  # it says that it lives every 30
_UNAUTHORIZED: Final = 401
_STARTED_BY: Final = "`graphwright up` starts it; `graphwright {}` runs it alone."

# A connection that listens and does nothing else shows the statement by which it began to.
LISTENING: Final[LiteralString] = """
SELECT count(*) AS listening FROM pg_stat_activity
WHERE datname = current_database() AND query = %s
"""
WAITING: Final[LiteralString] = """
SELECT count(*) AS waiting FROM (
    SELECT FROM graphwright.run_queue
    WHERE state = 'ready' AND not_before < now() - interval '1 minute' LIMIT 10000
) AS few
"""
REFUSED: Final[LiteralString] = """
SELECT count(*) AS runs, min(p.isolation) AS isolation, min(p.reason) AS reason
FROM graphwright.placements p WHERE p.failures > 0
"""
# A table of Dagster's. Its own classes, which read it, take seconds to import.
HEARTBEATS: Final[LiteralString] = """
SELECT max(timestamp) AS at FROM public.daemon_heartbeats
"""


def api(settings: Settings) -> Iterator[Finding]:
    """It answers, is ready, and takes our token."""
    url = settings.api_url
    with httpx.Client(base_url=url, trust_env=False, timeout=_SECONDS) as http:
        try:
            ready = http.get("/readyz")
        except httpx.TransportError as error:
            yield wrong("api", f"{url} cannot be reached: {error}", _STARTED_BY.format("api"))
            return
        if not ready.is_success:
            says = f"{url} is not ready: {ready.text.strip()[:500]}"
            yield wrong("api", says, "Its log says why.")
            return
        yield ok("api", f"{url} is ready")
        if not settings.token:
            yield skipped("token", "no token is set")
            return
        answer = http.get(
            "/api/v1/graphs",
            params={"limit": 1},
            headers={"Authorization": f"Bearer {settings.token}"},
        )
        if answer.status_code == _UNAUTHORIZED:
            mend = "`graphwright token --tenant TENANT` prints another; see GRAPHWRIGHT_TOKEN."
            yield wrong("token", "the API does not take it", mend)
        else:
            yield ok("token", "the API takes it")


def hooks(settings: Settings) -> Iterator[Finding]:
    """The webhook receiver is ready."""
    url = f"{settings.hooks_url}/readyz"
    try:
        answer = httpx.get(url, trust_env=False, timeout=_SECONDS)
    except httpx.TransportError as error:
        mend = _STARTED_BY.format("hooks")
        yield wrong("hooks", f"{settings.hooks_url} cannot be reached: {error}", mend)
        return
    if answer.is_success:
        yield ok("hooks", f"{settings.hooks_url} is ready")
    else:
        says = f"{settings.hooks_url} answers {answer.status_code}: {answer.text.strip()[:500]}"
        yield wrong("hooks", says, "Its log says why; is GRAPHWRIGHT_HOOKS_PUBLIC_URL right?")


def workers(settings: Settings) -> Iterator[Finding]:
    """There are some, and they are alive."""
    if not settings.database_url:
        yield skipped("workers", "no stack runs")
        return
    try:
        with reached(settings) as connection:
            found = roster(connection)
            row = connection.execute(WAITING).fetchone()
            refused = connection.execute(REFUSED).fetchone()
            assert row is not None
            assert refused is not None
    except psycopg.OperationalError:
        yield skipped("workers", "the database could not be asked")
        return
    now = datetime.now(UTC)
    # They say that they live three times within the lease.
    alive = [
        each for each in found if (now - each.seen).total_seconds() < 2 * settings.lease_seconds
    ]
    if not alive:
        says = f"none is alive, and {row['waiting']} runs wait for more than a minute"
        yield wrong("workers", says, _STARTED_BY.format("worker"))
        return
    if all(each.draining for each in alive):
        yield wrong("workers", "all are draining", _STARTED_BY.format("worker"))
        return
    held = sum(each.runs for each in alive)
    yield ok("workers", f"{len(alive)} alive, with {held} runs")
    if row["waiting"]:
        says = f"{row['waiting']} runs are ready and wait for more than a minute"
        mend = "Run more workers, or look at limits by `graphwright tenant show TENANT`."
        yield warning("queue", says, mend)
    if refused["runs"]:
        says = f"{refused['runs']} runs cannot be placed by {refused['isolation']}"
        mend = "Look at `run_launcher` in dagster.yaml, and at what it leads to."
        yield warning("placing", f"{says}: {refused['reason']}", mend)


def dispatcher(settings: Settings) -> Iterator[Finding]:
    """One listens for webhooks and timers."""
    if not settings.database_url:
        yield skipped("dispatcher", "no stack runs")
        return
    try:
        with reached(settings) as connection:
            row = connection.execute(LISTENING, (f'LISTEN "{DISPATCH_CHANNEL}"',)).fetchone()
            assert row is not None
    except psycopg.OperationalError:
        yield skipped("dispatcher", "the database could not be asked")
        return
    if row["listening"]:
        yield ok("dispatcher", f"{row['listening']} listening")
    else:
        says = "none listens: webhooks and timers wait for Dagster's daemon"
        yield wrong("dispatcher", says, _STARTED_BY.format("dispatcher"))


def dagster(settings: Settings) -> Iterator[Finding]:
    """Its UI answers, its daemon lives, the code server listens. Runs need none of them."""
    url = settings.dagster_url or f"http://127.0.0.1:{settings.dagster_port}"
    try:
        answers = httpx.get(f"{url}/server_info", trust_env=False, timeout=_SECONDS).is_success
    except httpx.TransportError:
        answers = False
    if answers:
        yield ok("dagster UI", url)
    else:
        mend = "`graphwright up` starts it; see logs/dagster.log in the state folder."
        yield warning("dagster UI", f"{url} does not answer", mend)
    # 0 asks for any port: the stack knows which one that became.
    port: int = settings.code_port or read_stack(settings.state).get("code_port", 0)
    try:
        socket.create_connection(("127.0.0.1", port), timeout=_SECONDS).close()
        yield ok("code server", f"listens on port {port}")
    except OSError:
        says = f"nothing listens on port {port}: the UI lists no graphs"
        yield warning("code server", says, _STARTED_BY.format("code"))
    yield from _daemon(settings)


def _daemon(settings: Settings) -> Iterator[Finding]:
    if not settings.database_url:
        yield skipped("dagster daemon", "no stack runs")
        return
    try:
        with reached(settings) as connection:
            row = connection.execute(HEARTBEATS).fetchone()
    except psycopg.OperationalError:
        yield skipped("dagster daemon", "the database could not be asked")
        return
    at: datetime | None = None if row is None else row["at"]
    since = None if at is None else time.time() - at.replace(tzinfo=at.tzinfo or UTC).timestamp()
    if since is None or since > _DAEMON_SECONDS:
        says = "it was never heard of" if since is None else f"last heard of {since:.0f} s ago"
        mend = "`graphwright up` starts it; see logs/daemon.log in the state folder."
        yield warning("dagster daemon", says, mend)
    else:
        yield ok("dagster daemon", f"heard of {max(since, 0):.0f} s ago")
