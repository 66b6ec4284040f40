"""The process behind :mod:`tests.forking`. It has one thread and no connection to any server, and
imports when it is first asked for a command.

Its argument is the descriptor of a socket that listens. Over each connection come an order and the
standard files of one process; back go its id and, when it has ended, its exit code. It stays a
zombie until the connection is closed, so that its id means no other meanwhile.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any, Final

_IMPORTED: Final = (
    "dynamic_jobs.workers.solo",
    "dynamic_jobs.workers.worker_pool",
    "graphwright.cli",
    "graphwright.client",
    "graphwright.code_server",
    "graphwright.dispatcher",
    "live_api.hooks",
    "live_api.server",
)
_MAX_ORDER_BYTES: Final = 2**18


class _Server:
    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._living: dict[int, socket.socket] = {}
        self._ended: dict[int, socket.socket] = {}
        self._told, self._signals = os.pipe()
        os.set_blocking(self._signals, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._signals)
        self._warm = False

    def serve(self) -> dict[str, Any] | None:
        """Fork until standard input ends; in the process that is forked, return its order."""
        try:
            return self._serve()
        except BaseException:
            self._end()
            raise

    def _serve(self) -> dict[str, Any] | None:
        while True:
            waiting = [sys.stdin, self._told, self._listener, *self._ended.values()]
            ready = select.select(waiting, [], [])[0]
            if sys.stdin in ready:
                self._end()
                return None
            if self._told in ready:
                os.read(self._told, 4_096)
                self._tell()
            for pid, link in list(self._ended.items()):
                if link in ready:  # it is closed
                    del self._ended[pid]
                    link.close()
                    os.waitpid(pid, 0)
            if self._listener in ready and (order := self._fork()) is not None:
                return order

    def _fork(self) -> dict[str, Any] | None:
        link, _ = self._listener.accept()
        text, files = b"", list[int]()
        with suppress(OSError):
            text, files, _, _ = socket.recv_fds(link, _MAX_ORDER_BYTES, 3)
        if not text:  # who asked has died
            link.close()
            return None
        self._import()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._close()
            # Who is told may signal its group, and what is interrupted here ends all that live.
            with suppress(OSError), link:
                link.send(str(os.getpid()).encode())
            for number, file in enumerate(files):
                os.dup2(file, number)
                os.close(file)
            return json.loads(text)
        for file in files:
            os.close(file)
        self._living[pid] = link
        return None

    def _import(self) -> None:
        if self._warm:
            return
        gc.disable()
        for module in _IMPORTED:
            import_module(module)
        gc.collect()
        gc.freeze()  # children never look at it, so that it stays shared
        self._warm = True

    def _close(self) -> None:
        for each in (self._listener, *self._living.values(), *self._ended.values()):
            each.close()
        self._living.clear()
        os.close(self._told)
        os.close(self._signals)

    def _tell(self) -> None:
        for pid in list(self._living):
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                continue
            link = self._ended[pid] = self._living.pop(pid)
            code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
            with suppress(OSError):
                link.send(str(code).encode())

    def _end(self) -> None:
        for pid in self._living:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def _run(arguments: list[str]) -> None:
    """What ``python`` does with these arguments."""
    kind, what, *_ = arguments
    sys.argv = arguments[1:] if kind == "-m" else ["-c", *arguments[2:]]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        program = sys.modules["__main__"] = ModuleType("__main__")
        exec(what, program.__dict__)


class _Ending:
    """Ends a process once all is done that Python does at its end, but for taking down all that is
    imported, which would copy it."""

    def __init__(self) -> None:
        self.code: int | None = None
        atexit.register(self._end)  # the first to be registered is the last to be called

    def _end(self) -> None:
        if self.code is not None:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(self.code)


def _main() -> None:
    ending = _Ending()
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        order = _Server(listener).serve()
    if order is None:
        return
    os.environ.clear()
    os.environ.update(order["environment"])
    time.tzset()
    os.chdir(order["folder"])
    gc.enable()
    try:
        _run(order["arguments"])
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        ending.code = 1 if isinstance(end.code, str) else int(end.code or 0)
    else:
        ending.code = 0


if __name__ == "__main__":
    _main()
