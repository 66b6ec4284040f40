"""Ending a node's attempt early, by timeout and by cancel, on the event loop and in threads."""

import asyncio
import logging

import pytest

from dynamic_jobs.executing.nodes import may_pass
from dynamic_jobs.executing.supervision import NodeTimeout
from tests.dynamic_jobs.conftest import Bench, graph
from tests.dynamic_jobs.ending_pieces import (
    IMPATIENT,
    NO_TIME,
    PATIENT,
    SOON,
    Pieces,
    attempt,
    cancelled,
    in_loop,
    pieces,
    turns,
)
from tests.dynamic_jobs.ending_types import Cleaning, Deaf, Listening

__all__ = ["pieces"]


def test_a_coroutine_may_clean_up_when_it_is_cancelled(pieces: Pieces) -> None:
    async def work() -> None:
        node_type = Cleaning()
        task = attempt(pieces.runner(PATIENT), pieces.node(node_type))
        await node_type.begun.wait()
        task.cancel()
        await node_type.told.wait()
        assert not task.done()
        node_type.go.set()
        await asyncio.wait([task])
        assert task.cancelled()
        assert node_type.cleaned

    in_loop(work)


def test_a_coroutine_that_does_not_end_is_abandoned(
    pieces: Pieces, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        node_type = Cleaning()
        task = attempt(pieces.runner(IMPATIENT), pieces.node(node_type))
        await node_type.begun.wait()
        await cancelled(task)
        assert not node_type.cleaned
        assert "node one of run r1 was told to end and did not: it is abandoned" in caplog.text
        node_type.go.set()
        await asyncio.gather(
            *(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True
        )
        assert "node one of run r1 has ended" in caplog.text

    caplog.set_level(logging.WARNING)
    in_loop(work)


def test_a_thread_is_told_of_its_cancel(pieces: Pieces, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        node_type = Listening()
        task = attempt(pieces.runner(PATIENT), pieces.node(node_type))
        await asyncio.to_thread(node_type.begun.wait)
        await cancelled(task)
        assert node_type.heard.is_set()

    in_loop(work)
    assert caplog.text == ""


def test_a_thread_that_does_not_listen_is_abandoned(
    pieces: Pieces, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        node_type = Deaf()
        runner = pieces.runner(IMPATIENT, threads=1)
        task = attempt(runner, pieces.node(node_type))
        await asyncio.to_thread(node_type.begun.wait)
        await cancelled(task)
        assert "it is abandoned (1 such in this process)" in caplog.text
        node_type.go.set()
        again = await attempt(runner, pieces.node(node_type))
        assert again.value == {"told": "late"}, "its thread has come back"
        assert "node one of run r1 has ended" in caplog.text

    caplog.set_level(logging.WARNING)
    in_loop(work)


def test_a_node_that_queues_for_a_thread_never_starts_once_cancelled(pieces: Pieces) -> None:
    async def work() -> None:
        runner, holding, queued = pieces.runner(PATIENT, threads=1), Deaf(), Deaf()
        first = attempt(runner, pieces.node(holding))
        await asyncio.to_thread(holding.begun.wait)
        second = attempt(runner, pieces.node(queued, timeout=NO_TIME))
        await turns()
        assert not second.done(), "it queues: its time has not begun"
        await cancelled(second)
        holding.go.set()
        await first
        assert not queued.begun.is_set()

    in_loop(work)


def test_a_coroutine_out_of_time_is_cancelled(pieces: Pieces) -> None:
    async def work() -> None:
        node_type = Cleaning()
        node_type.go.set()
        with pytest.raises(NodeTimeout) as raised:
            await attempt(pieces.runner(PATIENT), pieces.node(node_type, timeout=SOON))
        assert node_type.cleaned
        assert (raised.value.code, may_pass(raised.value)) == ("timeout", True)

    in_loop(work)


def test_a_thread_out_of_time_is_told(pieces: Pieces) -> None:
    async def work() -> None:
        node_type = Listening()
        with pytest.raises(NodeTimeout):
            await attempt(pieces.runner(PATIENT), pieces.node(node_type, timeout=SOON))
        assert node_type.heard.is_set()

    in_loop(work)


@pytest.mark.parametrize("node_type", ["work.compute", "work.sleep"])
def test_a_timeout_is_tried_again_where_retry_says_so(bench: Bench, node_type: str) -> None:
    node = {
        "type": node_type,
        "with": {"seconds": 3_600},
        "timeout_seconds": 0.1,
        "retry": {"limit": 1},
    }
    run_id = bench.start(bench.publish(graph({"one": node})))
    with bench.worker():
        row = bench.wait_for(run_id)
    assert (row["status"], row["error"]["code"]) == ("failed", "timeout")
    events = [kind for kind, step in bench.events(run_id) if step == "one"]
    kinds = [kind for kind in events if kind != "ENGINE_EVENT"]  # that it waits
    assert kinds == ["STEP_START", "STEP_UP_FOR_RETRY", "STEP_RESTARTED", "STEP_FAILURE"]
