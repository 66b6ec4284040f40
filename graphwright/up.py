"""``graphwright up``: a stack from its start, through the examples, until it is told to stop."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from foundation.settings import Settings
from graphwright.client import Client
from graphwright.home import shipped
from graphwright.showcase import documents, run_all
from graphwright.stack import Stack, describe
from graphwright.stackfile import StackLock, supervisor_pid
from graphwright.terminal import DONE, FAILED, Terminal

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(settings: Settings, terminal: Terminal, report_to: int | None) -> int:
    """Run a stack in this process; the exit code.

    With ``report_to``, a pipe from ``detach``, the outcome of the examples goes there and all
    further output into ``<state>/logs/up.log``. Raises AlreadyRunning and what starting raises.
    """
    lock = StackLock.acquire(settings.state)

    def report(code: int) -> None:
        if report_to is not None:
            _leave_terminal(settings.state / "logs" / "up.log")
            with suppress(BrokenPipeError):
                os.write(report_to, str(code).encode())
            os.close(report_to)

    if report_to is not None:
        os.set_inheritable(report_to, False)
    try:
        return asyncio.run(_serve(settings, terminal, report, echo=report_to is None))
    finally:
        lock.close()


def detach(settings: Settings, terminal: Terminal) -> int:
    """Start a stack in the background and return how its examples ended: 0, or 1."""
    read, write = os.pipe()
    command = ["--state", str(settings.state), "up", "--report-to", str(write)]
    # It shows its progress on our terminal, and leaves that when it reports.
    child = subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-m", "graphwright", *command],
        pass_fds=(write,),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(write)
    try:
        answer = os.read(read, 16)
    except KeyboardInterrupt:
        terminal.note("[yellow]interrupted; stopping what was started[/]")
        child.terminate()
        child.wait()
        return FAILED
    return int(answer) if answer else child.wait() or FAILED


def down(state: Path, terminal: Terminal, patience_seconds: float) -> int:
    """Stop the stack of ``state`` and wait until it has gone; nothing to do is a success."""
    return asyncio.run(_down(state, terminal, patience_seconds))


async def _down(state: Path, terminal: Terminal, patience_seconds: float) -> int:
    pid = supervisor_pid(state)
    if pid is None:
        terminal.note(f"no stack runs in {state}")
        return DONE
    with terminal.step(f"stopping the stack in {state}"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        waited = 0.0
        while supervisor_pid(state) is not None:
            if waited > patience_seconds:
                terminal.note(f"[bold red]process {pid} is still stopping[/]; see {state}/logs")
                return FAILED
            await asyncio.sleep(0.1)
            waited += 0.1
    return DONE


async def _serve(
    settings: Settings, terminal: Terminal, report: Callable[[int], None], *, echo: bool
) -> int:
    stack = Stack(settings, terminal, echo=echo)
    stopping, interrupted = asyncio.Event(), threading.Event()

    def on_signal() -> None:
        if stopping.is_set():
            stack.hurry.set()
        stopping.set()
        interrupted.set()

    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    work = asyncio.create_task(_bring_up(stack, terminal, interrupted, report))
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            return FAILED  # told to stop before it was up
        code = work.result()
        await stop
        return code
    finally:
        interrupted.set()
        work.cancel()
        stop.cancel()
        await stack.stop()
        await asyncio.gather(work, stop, return_exceptions=True)


async def _bring_up(
    stack: Stack, terminal: Terminal, interrupted: threading.Event, report: Callable[[int], None]
) -> int:
    await stack.start()
    examples = shipped("examples")
    failures: list[str] = []
    if examples is None:
        terminal.note("this installation has no examples")
    else:
        values = stack.values
        with Client(values["api_url"], values["token"], interrupted=interrupted) as client:
            failures = await asyncio.to_thread(run_all, client, documents(examples), terminal.note)
    with terminal.step("Dagster UI"):
        await stack.wait_for_dagster()
    for line in describe(stack):
        terminal.note(line)
    if failures:
        terminal.note("\n[bold red]The stack runs, but examples failed:[/]")
        for failure in failures:
            terminal.err.print(f"  {failure}", markup=False)
    terminal.note("\n[bold]Ready.[/] `graphwright down` or Ctrl-C stops it.")
    code = FAILED if failures else DONE
    report(code)
    return code


def _leave_terminal(log: Path) -> None:
    """Send stdout and stderr to a file, so that the terminal or pipe they were on can close."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
