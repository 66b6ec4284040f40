"""A whole installation in processes of its own, that a test may kill one by one."""

import os
import signal
import subprocess
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import httpx
import psutil

from foundation.database import connect
from foundation.settings import Settings
from graphwright.embedded import EmbeddedPostgres, EmbeddedValkey
from live_api.identity import SCOPES, issue_token, signing_key
from tests import services
from tests.forking import Forked

_START_SECONDS = 60


@dataclass
class Installation:
    """PostgreSQL and Valkey of its own; APIs and worker pools as they are asked for."""

    folder: Path
    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey
    settings: Settings
    environment: dict[str, str]
    processes: list[Forked] = field(default_factory=list[Forked])
    logs: list[IO[bytes]] = field(default_factory=list[IO[bytes]])

    def start(self, role: str, **changes: Any) -> Forked:
        """Start a process of this role, with other settings than the rest if given."""
        changed = {f"GRAPHWRIGHT_{name.upper()}": str(value) for name, value in changes.items()}
        log = (self.folder / f"{role}-{len(self.processes)}.log").open("wb")
        self.logs.append(log)
        process = Forked(["-m", "graphwright", role], {**self.environment, **changed}, log, log)
        self.processes.append(process)
        return process

    def daemon(self) -> Forked:
        """Start Dagster's daemon. It wants a ``code`` server."""
        return self.start("daemon")

    def api(self) -> str:
        """Start an API, and return its URL once it is ready."""
        port = services.free_port()
        return self.until_ready(self.start("api", api_port=port), port)

    def hooks(self) -> tuple[str, Forked]:
        """Start a webhook receiver, and return its URL once it is ready, and the process."""
        port = services.free_port()
        process = self.start("hooks", hooks_port=port)
        return self.until_ready(process, port), process

    def until_ready(self, process: Forked, port: int) -> str:
        """Wait until what listens on this port says that it is ready; its URL."""
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + _START_SECONDS
        with httpx.Client(trust_env=False) as client:  # making one takes some 20 ms
            while True:
                assert process.poll() is None, f"it ended: {process.args!r}"
                assert time.monotonic() < deadline, f"it does not answer: {process.args!r}"
                with suppress(httpx.TransportError):
                    if client.get(f"{url}/readyz").status_code == 200:
                        return url
                time.sleep(0.05)

    def headers(self, tenant: str = "acme") -> dict[str, str]:
        """What a request of this tenant carries."""
        token = issue_token(signing_key(self.settings.state), tenant, "ann", SCOPES, 3_600)
        return {"Authorization": f"Bearer {token}"}

    def workers(self) -> list[psutil.Process]:
        """The worker processes that live just now, without their parents."""
        found: list[psutil.Process] = []
        with connect(self.settings.database_url) as connection:
            rows = connection.execute("SELECT pid FROM graphwright.workers").fetchall()
        for row in rows:
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(row["pid"]))
        return found

    def until_working(self, workers: int) -> None:
        """Wait until so many worker processes have said that they are there."""
        deadline = time.monotonic() + _START_SECONDS
        while len(self.workers()) < workers:
            assert time.monotonic() < deadline, "the workers do not start"
            time.sleep(0.05)

    def count(self, where: str) -> int:
        """How many runs there are of which this is true."""
        with connect(self.settings.database_url) as connection:
            statement: Any = f"SELECT count(*) AS n FROM graphwright.runs WHERE {where}"
            row = connection.execute(statement).fetchone()
        assert row is not None
        return row["n"]

    def outcomes(self) -> dict[tuple[str, str | None], int]:
        """How many runs have this status, and this error's message."""
        with connect(self.settings.database_url) as connection:
            rows = connection.execute(
                "SELECT status, error ->> 'message' AS error, count(*) AS n"
                " FROM graphwright.runs GROUP BY 1, 2"
            ).fetchall()
        return {(row["status"], row["error"]): row["n"] for row in rows}

    def until_ended(self, runs: int, seconds: float) -> None:
        """Wait until so many runs have ended."""
        deadline = time.monotonic() + seconds
        while (ended := self.count("ended_at IS NOT NULL")) < runs:
            assert time.monotonic() < deadline, f"{ended} of {runs} runs have ended"
            time.sleep(0.1)

    def stop(self, processes: Iterable[Forked] | None = None) -> None:
        """Stop processes gracefully, or all of them."""
        chosen = list(self.processes if processes is None else processes)
        for process in chosen:
            with suppress(ProcessLookupError):
                process.terminate()
        for process in chosen:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def installation(**settings: Any) -> Generator[Installation]:
    """Servers with all tables, and no process of ours yet. All is gone at the end."""
    with TemporaryDirectory(prefix="gw-") as name:
        folder = Path(name)
        postgres, valkey = EmbeddedPostgres(folder), EmbeddedValkey(folder)
        server_url, redis_url = postgres.start(), valkey.start()
        made: Installation | None = None
        try:
            services.ensure_template(server_url, "faults")
            url = services.with_database(server_url, "faults")
            chosen = Settings(
                state=folder / "state",
                database_url=url,
                redis_url=redis_url,
                http_private=True,
                **settings,
            )
            chosen.state.mkdir(mode=0o700)
            own = {k: v for k, v in os.environ.items() if not k.startswith("GRAPHWRIGHT_")}
            given = {
                "STATE": chosen.state,
                "DATABASE_URL": url,
                "REDIS_URL": redis_url,
                "HTTP_PRIVATE": "true",
                **settings,
            }
            environment = {f"GRAPHWRIGHT_{k.upper()}": str(v) for k, v in given.items()}
            made = Installation(folder, postgres, valkey, chosen, {**own, **environment})
            yield made
        finally:
            if made is not None:
                made.stop()
                for log in made.logs:
                    log.close()
            postgres.stop()
            valkey.stop()
