"""The tasks beside a worker's runs."""

import asyncio
import logging

import pytest

from dynamic_jobs.workers import upkeep as module
from dynamic_jobs.workers.upkeep import upkeep


@pytest.mark.anyio
async def test_a_task_that_breaks_is_told_and_started_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.0)
    again, ended = asyncio.Event(), asyncio.Event()
    starts = 0

    async def breaks() -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise OSError("no memory")
        again.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with caplog.at_level(logging.ERROR):
        async with upkeep({"the test": breaks}):
            await again.wait()
    assert ended.is_set(), "it ends with the block"
    assert "the test broke, and starts again" in caplog.text
