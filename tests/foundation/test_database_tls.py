"""PostgreSQL by TLS: PGSSLMODE and PGSSLROOTCERT, which `production` sets, hold for all."""

import os
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from dagster_postgres.utils import create_pg_engine
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from foundation.database import connect, pinned
from graphwright.embedded import EmbeddedPostgres
from tests.certificates import Certified, certified
from tests.services import free_port

SERVERS = Path("/usr/lib/postgresql")
"""Where Debian has its releases; the PostgreSQL of our wheel has no TLS."""
SEEN = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


class TlsPostgres(EmbeddedPostgres):
    """Debian's PostgreSQL, which takes connections over TCP too."""

    def __init__(self, folder: Path, files: Certified, port: int) -> None:
        super().__init__(folder)
        self._files = files
        self._port = port

    def _programs(self) -> Path:
        return max(SERVERS.glob("*/bin"), key=lambda path: int(path.parent.name))

    def _prepare(self) -> None:
        super()._prepare()
        for path in (self._files.certificate, self._files.key):
            own = shutil.copy(path, self._folder / path.name)
            if self._user is not None:
                os.chown(own, self._user.uid, self._user.gid)

    def _command(self) -> Sequence[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "ssl": "on",
            "ssl_cert_file": str(self._folder / self._files.certificate.name),
            "ssl_key_file": str(self._folder / self._files.key.name),
        }
        flags = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        return [*super()._command(), *flags]


@contextmanager
def tls_postgres(folder: Path, files: Certified, port: int) -> Generator[None]:
    """It runs until the block ends."""
    server = TlsPostgres(folder, files, port)
    try:
        server.start()
        yield
    finally:
        server.stop()


def test_every_connection_checks_whom_it_has_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not list(SERVERS.glob("*/bin/initdb")):
        pytest.skip("Debian's postgresql is not here, and that of our wheel has no TLS")
    files = certified(tmp_path)
    (tmp_path / "other").mkdir()
    other = certified(tmp_path / "other")
    port = free_port()
    monkeypatch.setenv("PGPORT", str(port))  # of the Unix socket too
    with tls_postgres(tmp_path / "state", files, port):
        url = f"postgresql://graphwright@localhost:{port}/graphwright"
        monkeypatch.setenv("PGSSLMODE", "verify-full")
        monkeypatch.setenv("PGSSLROOTCERT", str(files.authority))
        with connect(url) as ours:
            assert ours.execute(SEEN).fetchone() == {"ssl": True}
        dagsters = create_pg_engine(pinned(url), None, isolation_level="AUTOCOMMIT")
        with dagsters.connect() as connection:
            assert connection.execute(text(SEEN)).scalar() is True
        dagsters.dispose()

        monkeypatch.setenv("PGSSLROOTCERT", str(other.authority))
        with pytest.raises(psycopg.OperationalError, match="SSL error"):
            connect(url)
        with pytest.raises(OperationalError, match="SSL error"):
            dagsters.connect()
        monkeypatch.setenv("PGSSLROOTCERT", str(files.authority))
        with pytest.raises(psycopg.OperationalError, match="does not match host name"):
            connect(f"{url}?host=ip6-localhost&hostaddr=127.0.0.1")
