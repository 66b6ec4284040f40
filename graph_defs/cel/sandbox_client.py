"""The caller's side of cel_sandbox: starts it when first needed, and again after a breach."""

import base64
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any, Final

import orjson

from graph_defs.cel import sandbox as cel_sandbox
from graph_defs.cel.faults import CostFault, EvaluationFault, ValueFault

_GRACE_SECONDS: Final = 10.0
"""The child's own alarm ends an evaluation; this is for a child that does not run at all."""
_MEMORY_ENDS: Final = {cel_sandbox.MEMORY_EXIT, -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS}
"""How a process ends for which there is no more memory, depending on where in cel-cpp it was."""
_ENVIRONMENT: Final = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")
"""All that the child gets to see of the environment, which may hold secrets."""


class SandboxLost(Exception):
    """The process was killed, or did not start, for no fault of the expression."""


class Sandbox:
    """One child process that evaluates costly expressions, one at a time. Threads may share it.

    ``memory_bytes`` bounds what an evaluation allocates, ``seconds`` its wall-clock time,
    ``reply_bytes`` its result as JSON. No process, pipe or thread exists before the first call; in
    a process forked later, the next call starts a process of its own.
    """

    def __init__(self, memory_bytes: int, seconds: float, reply_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._seconds = seconds
        self._reply_bytes = reply_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def evaluate(self, program: bytes, variables: Mapping[str, Any]) -> Any:
        """The value of ``program`` (from `cel_ast.encode`) as JSON.

        ``variables`` must have passed `cel_values.measure`. Raises `CostFault`, `EvaluationFault`,
        `ValueFault` and `SandboxLost`.
        """
        request = orjson.dumps(
            {
                "program": base64.b64encode(program).decode(),
                "variables": variables,
                "seconds": self._seconds,
                "reply_bytes": self._reply_bytes,
            }
        )
        with self._lock:
            # A child that something else killed, perhaps while idle, says nothing of the request.
            with contextlib.suppress(SandboxLost):
                return _value(self._ask(request))
            return _value(self._ask(request))

    def close(self) -> None:
        """Ends the child, if there is one; a later call starts another."""
        with self._lock:
            self._stop()

    def _ask(self, request: bytes) -> bytes:
        process = self._running()
        reply = _exchange(process, request, self._seconds + _GRACE_SECONDS)
        if reply is not None:
            return reply
        code = self._stop()
        if code == -signal.SIGALRM:
            raise CostFault(
                f"it ran for over {self._seconds:g} s",
                "Do less in one expression, or split it over several nodes.",
            )
        if code in _MEMORY_ENDS:
            raise CostFault(
                f"it needed over {self._memory_bytes >> 20} MiB of memory",
                "Build smaller values, or split it over several nodes.",
            )
        raise SandboxLost(f"the process that evaluates costly expressions ended with {code}")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process and self._owner != os.getpid():
            self._disown(self._process)
        if self._process and self._process.poll() is None:
            return self._process
        self._stop()
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-P", "-m", cel_sandbox.__name__, str(self._memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )
        self._process, self._owner = process, os.getpid()
        if _exchange(process, None, _GRACE_SECONDS) != cel_sandbox.READY:
            raise SandboxLost(
                f"the process that evaluates costly expressions did not start: {self._stop()}"
            )
        return process

    def _stop(self) -> int | None:
        """Ends the child and gives its exit code, negative for a signal."""
        process, self._process = self._process, None
        if process is None:
            return None
        if process.poll() is None and process.stdin and not process.stdin.closed:
            _close_pipes(process)
        try:
            process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _close_pipes(process)
        return process.returncode

    def _disown(self, process: subprocess.Popen[bytes]) -> None:
        # The child of the process that this one was forked from: not ours to wait for.
        _close_pipes(process)
        process.returncode = 0
        self._process = None


def _exchange(
    process: subprocess.Popen[bytes], request: bytes | None, seconds: float
) -> bytes | None:
    """Sends a frame, unless None, and reads one; None once the process is gone."""
    assert process.stdin
    assert process.stdout
    watchdog = threading.Timer(seconds, process.kill)
    watchdog.daemon = True
    watchdog.start()
    try:
        if request is not None:
            cel_sandbox.write_frame(process.stdin, request)
        return cel_sandbox.read_frame(process.stdout)
    except BrokenPipeError:
        return None
    finally:
        watchdog.cancel()


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _value(reply: bytes) -> Any:
    answer = orjson.loads(reply)
    match answer.get("fault"):
        case None:
            return answer["value"]
        case "evaluation":
            raise EvaluationFault(answer["message"])
        case "cost":
            raise CostFault(answer["message"], answer["hint"])
        case _:
            raise ValueFault(answer["message"], answer["hint"])
