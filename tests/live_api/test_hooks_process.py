"""The webhook receiver as a process: ``graphwright hooks``."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import httpx
import pytest

from foundation.database import connect
from foundation.settings import Limits, Settings
from live_api.hooks import run
from live_api.serving import NotConfigured
from tests.forking import Forked
from tests.live_api.receiving import add_trigger, deliveries, queued, set_secret
from tests.sensors import signing
from tests.services import free_port

_OTHERS = """
SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
AND backend_type = 'client backend'
"""


@contextmanager
def hooks_process(settings: Settings, port: int) -> Generator[Forked]:
    environment = os.environ | {
        "GRAPHWRIGHT_STATE": str(settings.state),
        "GRAPHWRIGHT_DATABASE_URL": settings.database_url,
        "GRAPHWRIGHT_HOOKS_PORT": str(port),
        "GRAPHWRIGHT_LOG_FORMAT": "text",  # without requests, which would fill a pipe nobody reads
    }
    with Forked(["-m", "graphwright", "hooks"], environment, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def says(process: Forked, words: str) -> bool:
    """Wait until it says these words or has ended."""
    assert process.stderr is not None
    return any(words in line for line in process.stderr)


def wait_until_alone(settings: Settings) -> None:
    """PostgreSQL ends a statement that it has got, whoever has died meanwhile."""
    with connect(settings.database_url) as connection:
        while connection.execute(_OTHERS).fetchall():
            pass


def test_sigterm_lets_a_call_finish(settings: Settings) -> None:
    set_secret(settings, "s3cret")
    address, port = add_trigger(settings, "github"), free_port()
    call, url = signing.github(b'{"a": 1}'), f"http://127.0.0.1:{port}"
    with hooks_process(settings, port) as process:
        assert says(process, "The webhook receiver listens on")

        def slowly() -> Iterator[bytes]:
            yield call.body[:3]
            # So the first part has arrived.
            assert httpx.get(f"{url}/healthz", timeout=30).status_code == 200
            process.terminate()
            assert says(process, "Shutting down")
            yield call.body[3:]

        answer = httpx.post(
            f"{url}/hooks/{address}", content=slowly(), headers=call.headers, timeout=30
        )
        assert answer.status_code == 202
        process.wait(timeout=30)
    assert len(deliveries(settings)) == 1


def test_killed_in_the_middle_and_everything_sent_again(settings: Settings) -> None:
    """What was answered is there; what was not may be there; sent again, each is there once."""
    set_secret(settings, "s3cret")
    address = add_trigger(settings, "github")
    calls = [
        signing.github(json.dumps({"n": n}).encode(), **{"X-GitHub-Delivery": f"delivery-{n}"})
        for n in range(600)
    ]
    accepted: list[str] = []
    port = free_port()
    with hooks_process(settings, port) as process, httpx.Client(timeout=30) as client:
        assert says(process, "The webhook receiver listens on")

        def send(call: signing.Signed) -> None:
            if len(accepted) >= 150:
                process.kill()
            with suppress(httpx.TransportError):
                url = f"http://127.0.0.1:{port}/hooks/{address}"
                answer = client.post(url, content=call.body, headers=call.headers)
                assert answer.status_code == 202
                accepted.append(answer.json()["delivery_id"])

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(send, calls))
    assert 150 <= len(accepted) < 600
    wait_until_alone(settings)
    before = {str(row["delivery_id"]) for row in deliveries(settings)}
    assert set(accepted) <= before
    port = free_port()
    with hooks_process(settings, port) as process, httpx.Client(timeout=30) as client:
        assert says(process, "The webhook receiver listens on")
        url = f"http://127.0.0.1:{port}/hooks/{address}"
        answers = [client.post(url, content=each.body, headers=each.headers) for each in calls]
    assert {answer.status_code for answer in answers} == {200, 202}
    known = {answer.json()["delivery_id"] for answer in answers if answer.status_code == 200}
    assert known == before
    assert len(deliveries(settings)) == queued(settings) == 600


def test_busy_port(settings: Settings) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with hooks_process(settings, taken.getsockname()[1]) as process:
            assert process.stderr is not None
            said = process.stderr.read()
            assert process.wait(timeout=60) == 1
    assert "GRAPHWRIGHT_HOOKS_PORT" in said


def test_a_database_must_be_configured(settings: Settings) -> None:
    with pytest.raises(NotConfigured, match="GRAPHWRIGHT_DATABASE_URL"):
        run(settings.model_copy(update={"database_url": ""}), Limits())


def test_it_is_lean() -> None:
    """It has no use for Dagster, which takes seconds and a hundred megabytes to import."""
    program = "import sys, live_api.hooks; sys.exit('dagster' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
