"""The API as a process."""

import os
import socket
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from queue import SimpleQueue
from subprocess import PIPE
from typing import IO

import httpx
import psutil
import pytest

from foundation.settings import Limits, Settings
from live_api.server import run
from live_api.serving import NotConfigured
from tests.forking import Forked
from tests.live_api.conftest import TokenFor
from tests.live_api.test_graphs import document
from tests.services import free_port

PROGRAM = """
from foundation.settings import Limits, Settings
from live_api.server import run
run(Settings(), Limits())
"""


@pytest.fixture
def port() -> int:
    return free_port()


class ApiProcess(Forked):
    """What it says is read as it comes: a full pipe would hold it up."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(["-c", PROGRAM], environment, stderr=PIPE)
        assert self.stderr is not None
        pipe, self.stderr = self.stderr, None  # the thread's, which closes it
        self._lines = SimpleQueue[str | None]()
        threading.Thread(target=self._read, args=(pipe,), name="stderr", daemon=True).start()

    def says(self, words: str) -> bool:
        """Wait until it says these words or has ended."""
        return any(words in line for line in iter(self._lines.get, None))

    def rest(self) -> str:
        """Wait until it has ended; what it said since ``says``."""
        self.wait(timeout=60)
        return "".join(iter(self._lines.get, None))

    def _read(self, pipe: IO[str]) -> None:
        with pipe:
            for line in pipe:
                self._lines.put(line)
        self._lines.put(None)


@contextmanager
def api_process(settings: Settings, port: int) -> Generator[ApiProcess]:
    environment = os.environ | {
        "GRAPHWRIGHT_STATE": str(settings.state),
        "GRAPHWRIGHT_DATABASE_URL": settings.database_url,
        "GRAPHWRIGHT_REDIS_URL": settings.redis_url,
        "GRAPHWRIGHT_API_PORT": str(port),
    }
    with ApiProcess(environment) as process:
        try:
            yield process
        finally:
            process.kill()


def started(process: ApiProcess) -> bool:
    """Wait until it serves or has ended."""
    return process.says("The API listens on")


def test_sigterm_lets_a_request_finish(settings: Settings, port: int, token_for: TokenFor) -> None:
    url = f"http://127.0.0.1:{port}"
    text = httpx.Request("POST", url, json=document()).content
    headers = {"Authorization": f"Bearer {token_for()}", "Content-Type": "application/json"}
    with api_process(settings, port) as process:
        assert started(process)

        def slowly() -> Iterator[bytes]:
            yield text[:10]
            # So the first part has arrived.
            assert httpx.get(f"{url}/healthz", timeout=60).status_code == 200
            process.terminate()
            assert process.says("Shutting down")
            yield text[10:]

        answer = httpx.post(f"{url}/api/v1/graphs", content=slowly(), headers=headers, timeout=60)
        assert answer.status_code == 201
        process.wait(timeout=60)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")


def test_busy_port(settings: Settings) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with api_process(settings, taken.getsockname()[1]) as process:
            said = process.rest()
    assert process.returncode == 1
    assert "CannotListen" in said
    assert "Application startup" not in said


def test_listens_on_loopback_alone(settings: Settings, port: int) -> None:
    with api_process(settings, port) as process:
        assert started(process)
        listening = {
            connection.laddr[0]
            for connection in psutil.Process(process.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
        process.terminate()
        process.wait(timeout=60)


@pytest.mark.parametrize("missing", ["database_url", "redis_url"])
def test_what_must_be_configured(settings: Settings, limits: Limits, missing: str) -> None:
    with pytest.raises(NotConfigured, match=f"GRAPHWRIGHT_{missing.upper()}"):
        run(settings.model_copy(update={missing: ""}), limits)
