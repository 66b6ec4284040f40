"""Attempts in real processes: ended early by timeout and by cancel, killed, and failing."""

import asyncio
from datetime import timedelta

import psutil
import pytest

from dynamic_jobs.executing.nodes import NodeCrashed, may_pass
from dynamic_jobs.executing.process_pool import ProcessLost
from dynamic_jobs.executing.supervision import NodeTimeout
from node_types.base import NodeError
from tests.dynamic_jobs.ending_pieces import (
    NO_TIME,
    PATIENT,
    Gate,
    Pieces,
    attempt,
    cancelled,
    gates,
    gone,
    in_loop,
    pieces,
    turns,
)
from tests.dynamic_jobs.ending_types import Held

__all__ = ["gates", "pieces"]


def test_a_cancelled_process_is_killed_and_its_neighbour_goes_on(
    pieces: Pieces, gates: list[Gate]
) -> None:
    async def work() -> None:
        runner = pieces.runner(PATIENT)
        one, two = (attempt(runner, pieces.node(Held(), gate=gate.path)) for gate in gates[:2])
        first, second = [await gate.up() for gate in gates[:2]]
        await cancelled(one)
        await gone(first)
        assert second.is_running()
        three = attempt(runner, pieces.node(Held(), gate=gates[2].path))
        third = await gates[2].up()
        assert third.pid not in (first.pid, second.pid), "a new one has taken its place"
        for gate in gates[1:]:
            gate.do("done")
        assert [(await task).value for task in (two, three)] == [{"told": "done"}] * 2

    in_loop(work)


def test_kill_9_of_one_process_fails_its_node_alone(pieces: Pieces, gates: list[Gate]) -> None:
    async def work() -> None:
        runner = pieces.runner(PATIENT)
        one, two = (attempt(runner, pieces.node(Held(), gate=gate.path)) for gate in gates[:2])
        first, second = [await gate.up() for gate in gates[:2]]
        first.kill()
        with pytest.raises(ProcessLost, match="was ended by SIGKILL") as raised:
            await one
        assert may_pass(raised.value)
        assert second.is_running()
        gates[1].do("done")
        assert (await two).value == {"told": "done"}

    in_loop(work)


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("fork", ProcessLost, "was ended by SIGKILL"),
        ("leave", ProcessLost, "left with 3"),
        ("refuse", NodeError, "refused"),
        ("break", NodeCrashed, "RuntimeError"),
    ],
)
def test_how_a_process_fails(
    pieces: Pieces, gates: list[Gate], what: str, error: type[NodeError], message: str
) -> None:
    gate = gates[0]

    async def work() -> None:
        task = attempt(pieces.runner(PATIENT), pieces.node(Held(), gate=gate.path))
        await gate.up()
        gate.do(what)
        with pytest.raises(error, match=message) as raised:
            await task
        assert type(raised.value) is error
        if what == "fork":
            gate.do("end")

    in_loop(work)


def test_a_process_serves_one_node_after_another(pieces: Pieces, gates: list[Gate]) -> None:
    gate = gates[0]

    async def work() -> None:
        runner, seen = pieces.runner(PATIENT), set[int]()
        for what in ("done", "refuse", "break", "done"):
            task = attempt(runner, pieces.node(Held(), gate=gate.path))
            seen.add((await gate.up()).pid)
            gate.do(what)
            await asyncio.wait([task])
            task.exception()
        assert len(seen) == 1

    in_loop(work)


def test_one_that_died_while_it_was_idle_costs_no_node(pieces: Pieces, gates: list[Gate]) -> None:
    gate = gates[0]

    async def work() -> None:
        runner = pieces.runner(PATIENT)
        for _ in range(2):
            task = attempt(runner, pieces.node(Held(), gate=gate.path))
            process = await gate.up()
            gate.do("done")
            assert (await task).value == {"told": "done"}
            process.kill()
            await gone(process)

    in_loop(work)


def until_zombie(process: psutil.Process) -> None:
    """Until all of its threads have ended: the last one closes what it had open."""
    while process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1:
        pass


def test_nor_does_one_that_died_just_before(pieces: Pieces, gates: list[Gate]) -> None:
    """The fork server, whose child it is, has not noticed yet."""
    gate = gates[0]

    async def work() -> None:
        runner = pieces.runner(PATIENT)
        task = attempt(runner, pieces.node(Held(), gate=gate.path))
        process = await gate.up()
        gate.do("done")
        await task
        server = psutil.Process(process.ppid())
        server.suspend()
        try:
            process.kill()
            await asyncio.to_thread(until_zombie, process)
            task = attempt(runner, pieces.node(Held(), gate=gate.path))
            await turns()  # it has looked whom it can have
        finally:
            server.resume()
        up = asyncio.create_task(gate.up())
        await asyncio.wait({task, up}, return_when=asyncio.FIRST_COMPLETED)
        assert not task.done(), task.exception()
        gate.do("done")
        assert (await task).value == {"told": "done"}

    in_loop(work)


def test_close_ends_the_processes(pieces: Pieces, gates: list[Gate]) -> None:
    async def work() -> None:
        runner = pieces.runner(PATIENT)
        one, two = (attempt(runner, pieces.node(Held(), gate=gate.path)) for gate in gates[:2])
        idle, busy = [await gate.up() for gate in gates[:2]]
        gates[0].do("done")
        await one
        pieces.processes.close()
        assert not idle.is_running()
        assert not busy.is_running()
        await cancelled(two)

    in_loop(work)


def test_a_process_out_of_time_is_killed(pieces: Pieces, gates: list[Gate]) -> None:
    gate = gates[0]

    async def work() -> None:
        runner = pieces.runner(PATIENT)
        before = attempt(runner, pieces.node(Held(), gate=gate.path))
        process = await gate.up()  # so that it has imported everything
        gate.do("done")
        await before
        node = pieces.node(Held(), timeout=timedelta(seconds=1), gate=gate.path)
        with pytest.raises(NodeTimeout):  # the same process has it: this is the only one
            await attempt(runner, node)
        await gone(process)

    in_loop(work)


def test_the_time_of_a_node_that_queues_for_a_process_has_not_begun(
    pieces: Pieces, gates: list[Gate]
) -> None:
    async def work() -> None:
        runner = pieces.runner(PATIENT)
        holding = [attempt(runner, pieces.node(Held(), gate=gate.path)) for gate in gates[:2]]
        for gate in gates[:2]:
            await gate.up()
        queued = attempt(runner, pieces.node(Held(), timeout=NO_TIME, gate=gates[2].path))
        await turns()
        assert not queued.done()
        gates[0].do("done")
        with pytest.raises(NodeTimeout):
            await queued
        gates[1].do("done")
        await asyncio.gather(*holding)

    in_loop(work)
