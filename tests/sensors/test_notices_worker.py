"""From a run's end to what it sets off, with a worker and a dispatcher as they are."""

import asyncio
import base64
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from standardwebhooks import Webhook

from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.workers.worker import Worker
from foundation.settings import Limits
from graphwright.dispatch import open_lanes
from graphwright.dispatcher import Dispatcher
from graphwright.home import dagster_environment, enter_dagster_home
from tests.sensors.conftest import TENANT, Site
from tests.sensors.noticing import Noticing, noticing
from tests.sensors.receiver import Receiver, receiving

pytestmark = pytest.mark.anyio

SECRET = "whsec_" + base64.b64encode(b"signs what is sent").decode()


@pytest.fixture
async def notified(site: Site, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Noticing]:
    for name, text in dagster_environment(site.settings).items():
        monkeypatch.setenv(name, text)  # and taken back at the end
    enter_dagster_home(site.settings)
    async with noticing(site) as opened:
        yield opened


@asynccontextmanager
async def working(notified: Noticing, limits: Limits) -> AsyncGenerator[None]:
    """A worker, in a thread, and a dispatcher."""
    site, stopping = notified.site, asyncio.Event()
    settings = site.settings.model_copy(update={"http_private": True})
    worker = Worker(settings, limits)
    running = asyncio.create_task(asyncio.to_thread(worker.run))
    try:
        with NodeRuntime(settings, limits, site.runtime.catalogue) as runtime:
            async with open_lanes(runtime, Compiler(runtime), [0]) as (lanes,):
                dispatcher = Dispatcher(settings.database_url, lanes.all, stopping)
                dispatching = asyncio.create_task(dispatcher.run())
                try:
                    yield
                finally:
                    stopping.set()
                    await dispatching
    finally:
        worker.stop()
        await running


def tell(receiver: Receiver, status: str) -> dict[str, object]:
    return {"on": [status], "url": receiver.url, "secret": "signing"}


async def test_a_failure_starts_the_repair_and_both_ends_are_told(
    notified: Noticing, limits: Limits
) -> None:
    await notified.secrets().put(TENANT, "signing", SECRET, "ann")
    async with receiving(503) as failures, receiving() as repairs:
        repair = {"why": "${{ trigger.error.code + ' in ' + trigger.error.node }}"}
        fix = {"on": ["failed"], "graph": "repair", "params": repair}
        broken = {"b": {"type": "data.transform", "with": {"value": "${{ params.missing }}"}}}
        params = {"type": "object", "properties": {"why": {"type": "string"}}}
        told_of = {"tell": tell(repairs, "succeeded")}
        await notified.publish(told_of, name="repair", params=params)
        graph_id = await notified.publish(
            {"fix": fix, "tell": tell(failures, "failed")}, nodes=broken
        )
        async with working(notified, limits):
            run_id = await notified.start(graph_id)
            (repaired,) = await repairs.until(1)
            refused, received = await failures.until(2)
    told = Webhook(SECRET).verify(received.body, received.headers)
    assert (told["type"], told["data"]["run_id"]) == ("run.failed", run_id)
    assert told["data"]["error"]["code"] == "expression_failed"
    assert (refused.headers["webhook-id"], refused.body) == (
        received.headers["webhook-id"],
        received.body,
    )
    told = Webhook(SECRET).verify(repaired.body, repaired.headers)
    run = await notified.site.row(
        "SELECT run_id::text, params, status FROM graphwright.runs WHERE run_id <> %s::uuid", run_id
    )
    assert (told["type"], told["data"]["run_id"]) == ("run.succeeded", run["run_id"])
    assert run["params"] == {"why": "expression_failed in b"}
    assert [(row["name"], row["status"]) for row in await notified.notices(run_id)] == [
        ("fix", "delivered"),
        ("tell", "delivered"),
    ]
