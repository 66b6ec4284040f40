"""Runs that say ``live: false``: stored, never published, and followed all the same."""

import asyncio
from typing import Any, cast

import pytest

from dynamic_jobs.reading.events import channel_of
from foundation.redis import sync_redis
from tests.dynamic_jobs.conftest import Bench, graph, value
from tests.dynamic_jobs.test_stream_worker import follow


@pytest.mark.parametrize("live", [True, False])
def test_only_live_runs_are_published(bench: Bench, live: bool) -> None:
    run_id = bench.start(bench.publish(graph({"a": value(1)})), live=live)
    the_end = f"the end of {run_id}"  # all tests share the channels
    with sync_redis(bench.settings.redis_url) as redis, redis.pubsub() as listening:
        listening.subscribe(channel_of(run_id), the_end)
        with bench.worker():
            bench.wait_for(run_id)
        redis.publish(the_end, "")  # pyright: ignore[reportUnknownMemberType]
        heard: list[str] = []
        for message in cast("Any", listening.listen()):
            if message["type"] == "message":
                heard.append(message["channel"])
                if heard[-1] == the_end:
                    break
    assert (len(heard) > 1) is live
    assert bench.events(run_id)[-1] == ("PIPELINE_SUCCESS", None), "stored either way"


def test_a_stream_of_such_a_run_reads_what_nobody_pushes(bench: Bench) -> None:
    run_id = bench.start(bench.publish(graph({"a": value(1), "b": value(2, "a")})), live=False)
    streamed, stored, run = asyncio.run(follow(bench, run_id, silence_seconds=0.05))
    assert streamed == stored
    assert streamed[-1]["type"] == "run.succeeded"
    assert run.live is False
