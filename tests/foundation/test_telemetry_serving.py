"""The port on which a process tells of itself."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from foundation.database import connect
from foundation.settings import Settings
from foundation.telemetry import health
from foundation.telemetry.health import Check, Unwell
from foundation.telemetry.serving import MetricsPortBusy, listener_of, serving
from tests.services import free_port

HOST = "127.0.0.1"


@contextmanager
def served(alive: list[Check], ready: list[Check]) -> Generator[httpx.Client]:
    settings = Settings(metrics_port=free_port())
    listener = listener_of(settings)
    assert listener is not None
    url = f"http://{HOST}:{settings.metrics_port}"
    with serving(listener, alive, ready), httpx.Client(base_url=url, timeout=30) as client:
        yield client


def fine() -> None:
    pass


def broken() -> None:
    raise Unwell("broken\nwith details")


def test_by_default_there_is_none() -> None:
    assert listener_of(Settings()) is None


def test_a_busy_port() -> None:
    with closing(socket.create_server((HOST, 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MetricsPortBusy, match=str(port)):
            listener_of(Settings(metrics_port=port))


def test_a_process_that_is_well() -> None:
    with served([Check("loop", fine)], [Check("database", fine)]) as client:
        assert client.get("/healthz").json() == {"status": "ready", "checks": {"loop": "ok"}}
        ready = client.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["checks"] == {"loop": "ok", "database": "ok"}
        assert "graphwright_http_requests_total" in client.get("/metrics").text
        assert client.get("/").status_code == 404


def test_a_process_that_lacks_something_names_it() -> None:
    with served([], [Check("database", broken), Check("redis", fine)]) as client:
        assert client.get("/healthz").status_code == 200
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json() == {
            "status": "not ready",
            "checks": {"database": "broken", "redis": "ok"},
        }


def test_what_is_not_needed_keeps_nobody_from_being_ready() -> None:
    with served([], [Check("redis", broken, needed=False)]) as client:
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]) == (200, {"redis": "broken"})


def test_a_loop_that_hangs() -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    go_on = threading.Event()
    check = health.event_loop(loop, patience_seconds=0.05)
    try:
        health.event_loop(loop).ask()
        loop.call_soon_threadsafe(go_on.wait)
        with pytest.raises(Unwell, match="has not turned"):
            check.ask()
    finally:
        go_on.set()
        health.event_loop(loop).ask()  # it turns again, and all that it was asked has ended
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_the_database(settings: Settings) -> None:
    health.database(settings).ask()
    with connect(settings.database_url) as connection:
        connection.execute("DELETE FROM graphwright.migrations WHERE name LIKE '0001%'")
    with pytest.raises(Unwell, match="0001_initial"):
        health.database(settings).ask()
    away = f"postgresql://nobody@{HOST}:{free_port()}/none"
    well, said = health.report([health.database(Settings(database_url=away))])
    assert not well
    assert "refused" in said["checks"]["database"]


def test_redis(redis_url: str) -> None:
    health.redis_server(Settings(redis_url=redis_url)).ask()
    away = Settings(redis_url=f"redis://{HOST}:{free_port()}/0")
    well, said = health.report([health.redis_server(away)])
    assert well
    assert said["checks"]["redis"] != "ok"


WORKERS = """
import os, signal, sys
from foundation.settings import Settings
from foundation.telemetry.together import counting_together
settings = Settings()
with counting_together(settings):
    from foundation.telemetry.metrics import RUNS, STREAM_CLIENTS
    from foundation.telemetry.serving import listener_of, serving
    listener = listener_of(settings)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # for `sigwait`
    children = []
    for number in (1, 2, 3):
        child = os.fork()
        if not child:
            RUNS.labels("succeeded").inc(number)
            STREAM_CLIENTS.labels("sse").inc(number)
            with serving(listener):
                print("counted", flush=True)
                signal.sigwait([signal.SIGTERM])
            os._exit(0)
        children.append(child)
    for line in sys.stdin:
        child = children.pop()
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        print("ended", flush=True)
"""


def test_processes_that_share_a_port_count_together() -> None:
    port = free_port()
    environment = {"GRAPHWRIGHT_METRICS_PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, "-c", WORKERS],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def read() -> tuple[float, float]:
        text = httpx.get(f"http://{HOST}:{port}/metrics", timeout=30).text
        values = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        return values["graphwright_runs_total"], values["graphwright_stream_clients"]

    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == ["counted\n"] * 3
        assert {read() for _ in range(10)} == {(6, 6)}
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ended\n"
        assert read() == (6, 3), "what it counted stays, what it had is gone"
        process.stdin.write("\n\n")
        process.stdin.flush()
        assert [process.stdout.readline() for _ in range(2)] == ["ended\n"] * 2


def test_two_that_look_at_once_both_forget_a_process_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(["/bin/true"]) as ended:
        pass
    (tmp_path / f"gauge_livesum_{ended.pid}.db").touch()
    remove = os.remove

    def removed_by_the_other(path: str) -> None:
        remove(path)
        remove(path)

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(os, "remove", removed_by_the_other)
    with served([], []) as client:
        assert client.get("/metrics").status_code == 200
