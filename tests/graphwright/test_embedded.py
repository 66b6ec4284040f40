"""The embedded servers: real ones, killed in every way that a developer's machine knows."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
import sqlalchemy

from graphwright.embedded import EmbeddedPostgres, EmbeddedValkey, ServerStartError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has such folders")


@pytest.fixture
def postgres(tmp_path: Path) -> Generator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "state")
    yield server
    server.stop()


@pytest.fixture
def valkey(tmp_path: Path) -> Generator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path / "state")
    yield server
    server.stop()


def put(url: str, value: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value integer)")
        connection.execute("INSERT INTO kept VALUES (%s)", (value,))


def kept(url: str) -> list[int]:
    with psycopg.connect(url) as connection:
        return [value for (value,) in connection.execute("SELECT value FROM kept ORDER BY value")]


def test_data_outlives_stop_and_start(postgres: EmbeddedPostgres) -> None:
    put(postgres.start(), 1)
    postgres.stop()
    assert postgres.pid is None
    assert kept(postgres.start()) == [1]


def test_every_safety_is_on_and_no_port_open(postgres: EmbeddedPostgres) -> None:
    expected = {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "listen_addresses": "",
        "max_connections": "200",
    }
    with psycopg.connect(postgres.start()) as connection:
        rows = connection.execute(
            "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", (list(expected),)
        )
        assert dict(rows.fetchall()) == expected
    assert postgres.pid is not None
    listening = psutil.Process(postgres.pid).net_connections("inet")
    assert not listening


def test_socket_is_out_of_others_reach(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    postgres.start()
    folder = tmp_path / "state" / "postgres"
    assert (folder / ".s.PGSQL.5432").is_socket()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_start_finds_the_running_server(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    put(postgres.start(), 1)
    second = EmbeddedPostgres(tmp_path / "state")
    assert second.start() == postgres.url
    assert second.pid == postgres.pid
    second.stop()
    assert postgres.pid is None


def test_starts_at_once_share_a_server(tmp_path: Path) -> None:
    servers = [EmbeddedPostgres(tmp_path / "state") for _ in range(4)]
    try:
        with ThreadPoolExecutor(4) as threads:
            urls = set(threads.map(EmbeddedPostgres.start, servers))
        assert len(urls) == 1
        assert len({server.pid for server in servers}) == 1
    finally:
        for server in servers:
            server.stop()


def test_parent_killed(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    program = """
import os, pathlib, signal, sys
from graphwright.embedded import EmbeddedPostgres
EmbeddedPostgres(pathlib.Path(sys.argv[1])).start()
os.kill(os.getpid(), signal.SIGKILL)
"""
    arguments = [sys.executable, "-c", program, str(tmp_path / "state")]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    orphan = postgres.pid
    assert orphan is not None
    put(postgres.start(), 1)
    assert postgres.pid == orphan


def test_server_killed_loses_nothing(postgres: EmbeddedPostgres) -> None:
    for value in range(3):
        put(postgres.start(), value)
        assert postgres.pid is not None
        os.kill(postgres.pid, signal.SIGKILL)
    assert kept(postgres.start()) == [0, 1, 2]


def test_server_killed_whose_processes_take_long_to_end(postgres: EmbeddedPostgres) -> None:
    url = postgres.start()
    put(url, 1)
    with psycopg.connect(url) as connection, ThreadPoolExecutor(1) as thread:
        assert postgres.pid is not None
        slow = connection.info.backend_pid
        os.kill(slow, signal.SIGSTOP)  # as one does that waits for its disk
        try:
            os.kill(postgres.pid, signal.SIGKILL)
            started = thread.submit(postgres.start)
            with pytest.raises(TimeoutError):
                started.result(3)
        finally:
            os.kill(slow, signal.SIGCONT)
        assert kept(started.result(60)) == [1]


def test_process_id_of_a_stranger(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """After a reboot the number in the file may be anybody's; nobody else is to be harmed."""
    put(postgres.start(), 1)
    postgres.stop()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        file = tmp_path / "state" / "postgres" / "data" / "postmaster.pid"
        file.write_text(f"{stranger.pid}\n{file.parent}\n1\n5432\n\n\n\nready\n")
        assert postgres.pid is None
        postgres.stop()
        assert kept(postgres.start()) == [1]
        assert stranger.poll() is None
        stranger.communicate(b"\n")


def test_killed_while_initialising(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    half_made = tmp_path / "state" / "postgres" / "data.new"
    put(postgres.start(), 1)
    postgres.stop()
    half_made.parent.joinpath("data").rename(half_made)
    put(postgres.start(), 2)
    assert kept(postgres.url) == [2]


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedValkey])
def test_path_too_long_for_a_socket(
    tmp_path: Path, kind: type[EmbeddedPostgres | EmbeddedValkey]
) -> None:
    server = kind(tmp_path / ("long" * 30) / "state")
    try:
        url = server.start()
        assert str(tmp_path) not in url
        folder = Path(url.removeprefix("unix://").split("=")[-1])
        folder = folder.parent if folder.is_socket() else folder
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert kind(tmp_path / ("long" * 30) / "state").start() == url
    finally:
        server.stop()


def test_folder_that_somebody_laid_out_for_us(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (state / "valkey").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ServerStartError, match="belongs to somebody else"):
        EmbeddedValkey(state).start()


def test_sqlalchemy_reads_the_url(postgres: EmbeddedPostgres) -> None:
    put(postgres.start(), 1)
    for url in (postgres.url, postgres.url.replace("postgresql:", "postgresql+psycopg2:")):
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            assert connection.execute(sqlalchemy.text("SELECT value FROM kept")).scalar() == 1
        engine.dispose()


def test_has_pgvector(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.start()) as connection:
        connection.execute("CREATE EXTENSION vector")


def test_odd_characters_in_the_path(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "st ate%&?ü")
    try:
        put(server.start(), 1)
        assert kept(server.url) == [1]
    finally:
        server.stop()


@as_root
def test_below_folders_that_only_root_may_pass(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "state")
    try:
        put(server.start(), 1)
        assert server.pid is not None
        assert psutil.Process(server.pid).uids().effective != 0
        assert stat.S_IMODE(closed.stat().st_mode) & 0o007 == 0
        server.stop()
        closed.chmod(0o700)  # which masks what one user was allowed
        assert kept(server.start()) == [1]
    finally:
        server.stop()


def test_data_that_cannot_be_read(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    postgres.start()
    postgres.stop()
    (tmp_path / "state" / "postgres" / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(ServerStartError, match="initialized by PostgreSQL version 12"):
        postgres.start()


def test_stop_before_start(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> None:
    postgres.stop()
    valkey.stop()


def test_valkey(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    with redis.from_url(valkey.start()) as client:
        client.set("key", "value")
        assert client.config_get("port") == {"port": "0"}
    assert stat.S_IMODE((tmp_path / "state" / "valkey" / "valkey.sock").stat().st_mode) == 0o700
    assert EmbeddedValkey(tmp_path / "state").start() == valkey.url
    assert valkey.pid is not None
    os.kill(valkey.pid, signal.SIGKILL)
    with redis.from_url(valkey.start()) as client:
        assert client.get("key") is None
