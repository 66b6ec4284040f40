"""Python processes of ours, forked from one that has everything imported.

``python -m graphwright …`` imports for a second or more before it does anything, and the tests
start hundreds of them. Here they start within some 30 ms, and are real processes: with an
environment, a process group, output and signals of their own. One process of ``forking_server``
forks them for all test processes of a session.

What has to be started by itself is ``graphwright worker`` with a metrics port, which sets what is
read at import; and some tests start commands by themselves to see that they start.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeAlias

FOLDER = "GRAPHWRIGHT_TEST_FOLDER"
"""The environment variable that names the folder of this session of tests."""
_SOCKET = "forking"

Output: TypeAlias = int | IO[bytes] | IO[str]


class ForkingServer:
    """The process that forks, for whoever has the session's folder. It ends when this one does."""

    def __init__(self, folder: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(folder / _SOCKET))
            listener.listen()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forking_server", str(listener.fileno())],
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.PIPE,  # it reads the end of it when we die
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )

    def close(self) -> None:
        """End it, and what it forked."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


class Forked:
    """A process with a process group of its own; it is used as ``Popen`` is.

    ``arguments`` are Python's: ``-m`` and a module or ``-c`` and a program, and what these take.
    ``stderr`` may be ``PIPE``; what comes out of it is text.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        stdout: Output = subprocess.DEVNULL,
        stderr: Output = subprocess.DEVNULL,
        stdin: Output = subprocess.DEVNULL,
    ) -> None:
        self.args = ["python", *arguments]
        self.returncode: int | None = None
        self.stderr: IO[str] | None = None
        order = {
            "arguments": arguments,
            "environment": dict(environment),
            "folder": str(Path.cwd()),
        }
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._looking = threading.Lock()
        self._link.connect(str(Path(os.environ[FOLDER]) / _SOCKET))
        with ExitStack() as ours:
            nothing = ours.enter_context(Path(os.devnull).open("r+b"))
            files: list[int] = []
            for output in (stdin, stdout, stderr):
                if output == subprocess.PIPE:
                    reading, writing = os.pipe()
                    self.stderr = os.fdopen(reading, encoding="utf-8")
                    ours.callback(os.close, writing)
                    files.append(writing)
                elif output == subprocess.DEVNULL:
                    files.append(nothing.fileno())
                else:
                    files.append(output if isinstance(output, int) else output.fileno())
            socket.send_fds(self._link, [json.dumps(order).encode()], files)
            self.pid = int(self._link.recv(100))

    def poll(self) -> int | None:
        """Its exit code if it has ended; negative where a signal ended it."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended. Raises TimeoutExpired."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def _ended(self, timeout: float | None) -> int | None:
        # Another thread may be waiting; then it is not known to have ended.
        if self._looking.acquire(timeout=-1 if timeout is None else timeout):
            try:
                if self.returncode is None and select.select([self._link], [], [], timeout)[0]:
                    self.returncode = int(self._link.recv(100))
                    self._link.close()  # from now on its process id may be another's
            finally:
                self._looking.release()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing happens where it is known to have ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.stderr is not None:
            self.stderr.close()
        self.wait()


def run(
    arguments: Sequence[str], environment: Mapping[str, str], given: str = "", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """What ``graphwright`` said, once it has ended; ``given`` is its standard input."""
    done = run_bytes(arguments, environment, given.encode(), timeout)
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def run_bytes(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    given: bytes = b"",
    timeout: float = 60,
) -> subprocess.CompletedProcess[bytes]:
    """As :func:`run` does."""
    with ExitStack() as files:
        stdin, stdout, stderr = (files.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        stdin.write(given)
        stdin.seek(0)
        process = Forked(["-m", "graphwright", *arguments], environment, stdout, stderr, stdin)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        said = [(file.seek(0), file.read())[1] for file in (stdout, stderr)]
    return subprocess.CompletedProcess(process.args, code, *said)
