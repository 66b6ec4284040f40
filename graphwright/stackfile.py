"""What a running stack leaves in its state folder: the lock that says it lives, and ``stack.json``.

The lock is the truth about whether a stack runs: the operating system drops it with its holder.
``stack.json`` tells others where things are; its keys are fields of ``Settings``, which reads it.
"""

import fcntl
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, cast

import psutil

from foundation.errors import GraphwrightError
from foundation.settings import STACK_FILE
from graphwright.home import make_private

_LOCK_FILE = "lock"


class AlreadyRunning(GraphwrightError):
    """Another supervisor holds this state folder."""

    code = "already_running"


class StackLock:
    """The exclusive right to run a stack in ``state``; held until closed or the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, state: Path) -> Self:
        """Raises AlreadyRunning."""
        make_private(state)
        descriptor = os.open(state / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        if not _lock(descriptor):
            os.close(descriptor)
            raise AlreadyRunning(
                f"a stack is already running in {state} (process {supervisor_pid(state)})",
                hint="`graphwright status` says where it is, `graphwright down` stops it, "
                "and another --state or GRAPHWRIGHT_STATE runs a second one beside it.",
            )
        # Of fixed width, so that one write replaces the number of the holder before us.
        os.pwrite(descriptor, f"{os.getpid():>20}".encode(), 0)
        return cls(descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def supervisor_pid(state: Path) -> int | None:
    """The process id of the supervisor that runs in ``state``, None when none does."""
    try:
        descriptor = os.open(state / _LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 20, 0)
        return int(text) if text else None
    else:
        return None
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    # Those who only ask (``supervisor_pid``) hold the lock for an instant: outlast them.
    for _ in range(20):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.02)
    return False


def write_stack(state: Path, values: dict[str, Any]) -> None:
    """Replace ``stack.json`` (mode 0600: it holds a token) as a whole."""
    fresh = state / f"{STACK_FILE}.new"
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(values, file, indent=2)
    fresh.replace(state / STACK_FILE)


def remove_stack(state: Path) -> None:
    (state / STACK_FILE).unlink(missing_ok=True)


def read_stack(state: Path) -> dict[str, Any]:
    """What the running stack wrote; empty while it has not, or when none runs."""
    if supervisor_pid(state) is None:
        return {}
    try:
        return cast("dict[str, Any]", json.loads((state / STACK_FILE).read_text("utf-8")))
    except FileNotFoundError:
        return {}


def with_children(pid: int) -> list[int]:
    """``pid`` and every live process below it; empty when it has ended."""
    try:
        process = psutil.Process(pid)
        return [pid, *sorted(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []
