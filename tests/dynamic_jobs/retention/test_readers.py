"""Whoever reads a run that is being removed: our API and streams, and Dagster."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest
from dagster import AssetKey, DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster_graphql.schema import create_schema

from dynamic_jobs.reading.stream import PAGE_EVENTS, StreamHub
from foundation.database import Connection, async_pool, connect
from foundation.errors import NotFound
from foundation.redis import async_redis
from foundation.settings import Limits, Settings
from foundation.tenant_pool import TenantPool
from live_api.identity import SCOPES, issue_token, signing_key
from tests.dynamic_jobs.conftest import Bench
from tests.dynamic_jobs.retention.conftest import (
    age,
    ended_run,
    large_run,
    left,
    prune,
)
from tests.dynamic_jobs.run_rows import ACME, RunRows, line
from tests.dynamic_jobs.storages import instance_over, materialized
from tests.live_api.conftest import serving


def test_readers_of_a_run_that_is_removed(
    settings: Settings, limits: Limits, connection: Connection
) -> None:
    rows = ended_run(settings, 31, nodes=("a",))
    child = ended_run(settings, 1, nodes=("a",), graph_id=rows.graph_id)
    connection.execute(
        "UPDATE graphwright.runs SET parent_run_id = %s WHERE run_id = %s",
        (rows.run_id, child.run_id),
    )
    token = issue_token(signing_key(settings.state), ACME, "ann", SCOPES, 3_600)
    with (
        serving(settings, limits) as url,
        httpx.Client(
            base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=60
        ) as api,
    ):
        path = f"/runs/{rows.run_id}"
        page = api.get(f"{path}/events", params={"limit": 2}).json()
        assert page["next_cursor"]
        assert len(api.get("/runs").json()["items"]) == 2
        assert prune(settings).runs == 1
        answers = [
            api.get(path),
            api.get(f"{path}/events", params={"after": page["next_cursor"]}),
            api.get(
                f"{path}/events",
                headers={"Accept": "text/event-stream", "Last-Event-ID": page["next_cursor"]},
            ),
            api.get(f"{path}/nodes/a/output"),
            api.post(f"{path}/cancel"),
        ]
        assert [answer.status_code for answer in answers] == [404] * 5
        (listed,) = api.get("/runs").json()["items"]
        assert (listed["run_id"], listed["parent_run_id"]) == (child.run_id, rows.run_id)
        assert api.get(f"/runs/{child.run_id}").status_code == 200


@pytest.mark.anyio
async def test_a_stream_of_a_run_that_is_removed_ends(settings: Settings) -> None:
    rows = RunRows(settings.database_url)
    rows.write(*[line("a", str(n)) for n in range(PAGE_EVENTS + 5)])
    rows.succeed()
    with connect(settings.database_url) as connection:
        age(connection, rows.run_id, 31)
    async with (
        async_pool(settings.database_url, size=2) as pool,
        async_redis(settings.redis_url) as redis,
        StreamHub(pool, TenantPool(pool), redis) as hub,
        aclosing(hub.follow(ACME, rows.run_id, 0)) as events,
    ):
        assert len(await anext(events)) == PAGE_EVENTS
        await asyncio.to_thread(prune, settings)
        with pytest.raises(NotFound):
            await anext(events)


def test_dagster_finds_nothing_amiss(bench: Bench, connection: Connection) -> None:
    """Its own GraphQL, as the UI asks it: of a run that is gone, of its re-run, of all."""
    gone, kept = large_run(bench, 31), large_run(bench, 1)
    for name in ("root_run_id", "parent_run_id"):
        connection.execute(
            "INSERT INTO run_tags (run_id, key, value) VALUES (%s, 'dagster/' || %s, %s)",
            (kept, name, gone),
        )
    prune(bench.settings)
    asked = """query($gone: ID!, $kept: ID!) {
        runsOrError(limit: 10) { ... on Runs { results { runId status parentRunId
            stats { ... on RunStatsSnapshot { stepsSucceeded } } } } }
        gone: runOrError(runId: $gone) { __typename }
        kept: runOrError(runId: $kept) { __typename ... on Run { status rootRunId } }
        log: logsForRun(runId: $gone) { __typename }
        group: runGroupOrError(runId: $kept) { __typename }
    }"""
    with (
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as context,
    ):
        answer = asyncio.run(
            create_schema().execute_async(
                asked,
                context_value=context.create_request_context(),
                variable_values={"gone": gone, "kept": kept},
            )
        )
    assert answer.errors is None
    assert answer.data is not None
    assert [run["runId"] for run in answer.data["runsOrError"]["results"]] == [kept]
    assert answer.data["gone"]["__typename"] == "RunNotFoundError"
    assert answer.data["kept"]["status"] == "SUCCESS"
    assert answer.data["log"]["__typename"] == "RunNotFoundError"


def test_assets_are_left_as_dagster_leaves_them(
    settings: Settings, connection: Connection, tmp_path: Path
) -> None:
    """``delete_run`` of Dagster's for one run, retention for the other: the same remains."""
    theirs, ours = (ended_run(settings, 31) for _ in range(2))
    with instance_over("ours", settings.database_url, tmp_path) as instance:
        for rows, name in ((theirs, "theirs"), (ours, "ours")):
            tags = {"dagster/data_version": "1"}
            instance.store_event(materialized(name, tags=tags, run=rows.run_id))
        instance.delete_run(theirs.run_id)
        connection.execute("DELETE FROM graphwright.runs WHERE run_id = %s", (theirs.run_id,))
        assert prune(settings).runs == 1
        assert left(connection, ours.run_id) == set()
        kept = [
            instance.get_asset_records([AssetKey(name)])[0].asset_entry
            for name in ("theirs", "ours")
        ]
        assert all(asset.last_materialization_record is not None for asset in kept)
        assert [asset.last_run_id for asset in kept] == [theirs.run_id, ours.run_id]
        tagged = connection.execute("SELECT count(*) AS n FROM asset_event_tags").fetchone()
        assert tagged == {"n": 0}
