"""The supervisor with real processes: small Python programs in place of the services."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from graphwright.guard import Guard
from graphwright.supervisor import Service, Supervisor

Lines = asyncio.Queue[tuple[str, str]]


@asynccontextmanager
async def supervisor(folder: Path) -> AsyncGenerator[tuple[Supervisor, Lines]]:
    lines: Lines = asyncio.Queue()
    guard = Guard()
    kept = Supervisor(
        folder, guard, lambda role, line: lines.put_nowait((role, line)), changed=lambda: None
    )
    try:
        yield kept, lines
    finally:
        await kept.stop(list(kept.pids), asyncio.Event())
        guard.close()


def service(program: str, *, role: str = "some", grace: float = 5.0) -> Service:
    return Service(role, (sys.executable, "-u", "-c", program), dict(os.environ), grace)


async def until(lines: Lines, text: str) -> str:
    while True:
        _, line = await asyncio.wait_for(lines.get(), 60)
        if text in line:
            return line


SLEEPER = "import os, time; print('pid', os.getpid()); time.sleep(600)"
STUBBORN = (
    "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('pid', os.getpid()); time.sleep(600)"
)
WITH_CHILD = (
    "import subprocess, sys, time;"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print('child', child.pid); time.sleep(600)"
)


def test_output_goes_to_the_sink_and_the_log(tmp_path: Path) -> None:
    async def check() -> None:
        async with supervisor(tmp_path) as (kept, lines):
            kept.start(service("print('héllo'); import time; time.sleep(600)", role="api"))
            assert await asyncio.wait_for(lines.get(), 60) == ("api", "héllo")
        assert (tmp_path / "api.log").read_text("utf-8") == "héllo\n"

    asyncio.run(check())


def test_a_child_that_dies_is_started_again(tmp_path: Path) -> None:
    async def check() -> None:
        async with supervisor(tmp_path) as (kept, lines):
            kept.start(service(SLEEPER))
            first = await until(lines, "pid")
            os.kill(kept.pids["some"], signal.SIGKILL)
            assert "SIGKILL" in await until(lines, "starts again")
            assert await until(lines, "pid") != first
            assert kept.deaths("some") == 1

    asyncio.run(check())


def test_one_that_keeps_dying_is_started_ever_later(tmp_path: Path) -> None:
    async def check() -> None:
        async with supervisor(tmp_path) as (kept, lines):
            kept.start(service("raise SystemExit(3)"))
            said = [await until(lines, "starts again") for _ in range(3)]
        assert [line.split("again in ")[1] for line in said] == ["0.5 s", "1 s", "2 s"]
        assert all(line.startswith("ended with code 3") for line in said)

    asyncio.run(check())


def test_a_command_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    async def check() -> None:
        async with supervisor(tmp_path) as (kept, lines):
            kept.start(Service("some", (str(tmp_path / "absent"),), {}))
            assert "could not be started" in await until(lines, "starts again")

    asyncio.run(check())


def test_one_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    async def check() -> None:
        async with supervisor(tmp_path) as (kept, lines):
            kept.start(service(STUBBORN, grace=0.2))
            pid = int((await until(lines, "pid")).split()[1])
            await kept.stop(["some"], asyncio.Event())
            assert not psutil.pid_exists(pid)

    asyncio.run(check())


def test_hurry_cuts_the_grace_short(tmp_path: Path) -> None:
    async def check() -> None:
        async with supervisor(tmp_path) as (kept, lines):
            kept.start(service(STUBBORN, grace=600))
            await until(lines, "pid")
            hurry = asyncio.Event()
            hurry.set()
            await asyncio.wait_for(kept.stop(["some"], hurry), 60)

    asyncio.run(check())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_child_started_goes_with_it(tmp_path: Path, number: signal.Signals) -> None:
    async def check() -> None:
        async with supervisor(tmp_path) as (kept, lines):
            kept.start(service(WITH_CHILD))
            grandchild = psutil.Process(int((await until(lines, "child")).split()[1]))
            os.kill(kept.pids["some"], number)
            await until(lines, "starts again")
            # In a process of its own group, adopted by init: gone, or a zombie until init looks.
            assert _gone(grandchild)

    asyncio.run(check())


GUARDED = """
import signal, subprocess, sys, time
from graphwright.guard import Guard
guard = Guard()
program = [sys.executable, "-c", "import time; time.sleep(600)"]
killed = subprocess.Popen(program, start_new_session=True)
asked = subprocess.Popen(program, start_new_session=True)
released = subprocess.Popen(program, start_new_session=True)
guard.watch(killed.pid)
guard.watch(asked.pid, signal.SIGTERM)
guard.watch(released.pid)
guard.forget(released.pid)
print(guard.pid, killed.pid, asked.pid, released.pid, flush=True)
time.sleep(600)
"""


def test_the_guard_ends_what_it_watches_when_its_owner_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GUARDED], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        guard, killed, asked, released = (psutil.Process(pid) for pid in pids)
        owner.kill()
    try:
        assert all(_gone(each) for each in (killed, asked, guard))
        assert released.is_running()
    finally:
        released.kill()


def _gone(process: psutil.Process) -> bool:
    """Whether it ends; a zombie that init has not reaped yet has ended, though not to the guard,
    which waits for 10 s then."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False
