"""Child processes that are kept alive: started, followed, restarted with backoff, stopped in order.

Each child leads a process group of its own, so that the terminal's Ctrl-C reaches only us and that
nothing a child started survives it. Its output goes line by line to a log file and to a sink.
"""

import asyncio
import os
import signal
import time
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from graphwright.guard import Guard
from graphwright.rolelog import LineSplitter, RoleLog

_FIRST_DELAY_SECONDS = 0.5
_MAX_DELAY_SECONDS = 30.0
_HEALTHY_SECONDS = 30.0  # having lived that long, a child starts again without delay
_LAST_OUTPUT_SECONDS = 2.0
_CHUNK_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Service:
    """One child: its role, command, whole environment, and how long it may take to stop."""

    role: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    grace_seconds: float = 5.0


@dataclass(slots=True)
class _Kept:
    service: Service
    task: asyncio.Task[None] | None = None
    process: Process | None = None
    deaths: int = 0
    stopping: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """Keeps services alive on the running event loop.

    ``sink(role, line)`` gets every line of output; ``changed()`` is called when a pid changes.
    """

    def __init__(
        self,
        logs: Path,
        guard: Guard,
        sink: Callable[[str, str], None],
        changed: Callable[[], None],
    ) -> None:
        self._logs = logs
        self._guard = guard
        self._sink = sink
        self._changed = changed
        self._kept: dict[str, _Kept] = {}

    @property
    def pids(self) -> dict[str, int]:
        """The live process of each role."""
        return {
            role: kept.process.pid
            for role, kept in self._kept.items()
            if kept.process is not None and kept.process.returncode is None
        }

    def deaths(self, role: str) -> int:
        """How often the role's process ended without being asked to."""
        return self._kept[role].deaths

    def start(self, service: Service) -> None:
        """Begin to keep ``service`` alive, until ``stop``."""
        kept = self._kept[service.role] = _Kept(service)
        kept.task = asyncio.create_task(self._keep(kept), name=f"keep {service.role}")

    async def stop(self, roles: Iterable[str], hurry: asyncio.Event) -> None:
        """SIGTERM, then after each one's grace time, or as soon as ``hurry`` is set, SIGKILL."""
        await asyncio.gather(
            *(self._stop(self._kept[role], hurry) for role in roles if role in self._kept)
        )

    async def _stop(self, kept: _Kept, hurry: asyncio.Event) -> None:
        kept.stopping = True
        kept.wake.set()
        if kept.task is None or kept.task.done():
            return
        if kept.process is not None:
            _signal_group(kept.process.pid, signal.SIGTERM)
        hurried = asyncio.create_task(hurry.wait())
        await asyncio.wait(
            {kept.task, hurried},
            timeout=kept.service.grace_seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )
        hurried.cancel()
        if kept.process is not None:
            _signal_group(kept.process.pid, signal.SIGKILL)
        await kept.task

    async def _keep(self, kept: _Kept) -> None:
        role, delay = kept.service.role, _FIRST_DELAY_SECONDS
        with RoleLog(self._logs / f"{role}.log") as log:
            while not kept.stopping:
                began = time.monotonic()
                how = await self._run_once(kept, log)
                if kept.stopping:
                    return
                kept.deaths += 1
                if time.monotonic() - began > _HEALTHY_SECONDS:
                    delay = _FIRST_DELAY_SECONDS
                self._sink(role, f"{how}; it starts again in {delay:g} s")
                with suppress(TimeoutError):
                    await asyncio.wait_for(kept.wake.wait(), delay)
                delay = min(2 * delay, _MAX_DELAY_SECONDS)

    async def _run_once(self, kept: _Kept, log: RoleLog) -> str:
        """Start the process, follow it to its end, and say how it ended."""
        # A pipe of our own: asyncio's `wait` would not return before the pipe that it made closes,
        # and a grandchild may hold that for ever.
        read, write = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *kept.service.command,
                env=dict(kept.service.environment),
                stdin=DEVNULL,
                stdout=write,
                stderr=STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            os.close(read)
            return f"{kept.service.command[0]} could not be started: {error.strerror}"
        finally:
            os.close(write)
        self._guard.watch(process.pid)
        kept.process = process
        self._changed()
        if kept.stopping:
            _signal_group(process.pid, signal.SIGTERM)
        following = asyncio.create_task(self._follow(read, kept.service.role, log))
        code = await process.wait()
        # What it left behind would hold its port and its output.
        _signal_group(process.pid, signal.SIGKILL)
        # Ends with the group, unless something left the group and kept our pipe.
        await asyncio.wait({following}, timeout=_LAST_OUTPUT_SECONDS)
        following.cancel()
        self._guard.forget(process.pid)
        kept.process = None
        self._changed()
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    async def _follow(self, pipe: int, role: str, log: RoleLog) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb")
        )
        lines = LineSplitter()
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                log.write(chunk)
                for line in lines.feed(chunk):
                    self._sink(role, line)
        finally:
            transport.close()
        for line in lines.rest():
            self._sink(role, line)


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
