"""The graph store against a real PostgreSQL."""

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

import psycopg
import pytest

from foundation.database import AsyncPool, async_pool, connect
from foundation.errors import Invalid, NotFound
from foundation.ids import GraphVersionId, TenantId, new_id
from foundation.tenant_pool import TenantPool, tenant_sessions
from graph_defs.fingerprint import Canonical, canonical
from graph_defs.json_values import JsonObject
from graph_defs.publishing import Publication
from graph_defs.store import GraphStore
from graph_defs.stored_versions import load_version
from graph_defs.versions import Graph

pytestmark = pytest.mark.anyio

ACME, OTHER = TenantId("acme"), TenantId("other")
NODE_TYPES = {"data.transform": 1}


@pytest.fixture
async def pool(database_url: str) -> AsyncGenerator[AsyncPool]:
    async with async_pool(database_url) as pool:
        yield pool


@pytest.fixture
async def store(database_url: str) -> AsyncGenerator[GraphStore]:
    async with tenant_sessions(database_url) as sessions:
        yield GraphStore(TenantPool(sessions))


def document(name: str = "digest", value: int = 1, **metadata: object) -> JsonObject:
    text = json.dumps(
        {
            "apiVersion": "graphwright/v1",
            "kind": "Graph",
            "metadata": {"name": name, **metadata},
            "nodes": {"a": {"type": "data.transform", "with": {"value": value}}},
        }
    )
    return json.loads(text)


async def apply(
    store: GraphStore, given: JsonObject, tenant: TenantId = ACME, author: str = "ann"
) -> tuple[Graph, bool]:
    return await store.apply(tenant, Publication(Canonical.of(given), NODE_TYPES, author))


async def test_first_version(store: GraphStore) -> None:
    given = document(description="Of quakes", labels={"team": "geo"})
    graph, created = await apply(store, given)
    assert created
    assert (graph.name, graph.version, graph.tenant) == ("digest", 1, "acme")
    assert graph.fingerprint == Canonical.of(given).fingerprint
    assert (graph.description, graph.labels) == ("Of quakes", {"team": "geo"})
    version = await store.version(ACME, graph.graph_id)
    assert version.document == given
    assert json.loads(await store.document(ACME, graph.graph_id, 1)) == given
    assert (version.version, version.author, version.node_types) == (1, "ann", NODE_TYPES)


async def test_same_document_is_the_same_version(store: GraphStore) -> None:
    first, _ = await apply(store, document())
    again, created = await apply(store, document(), author="bob")
    assert not created
    assert again == first


async def test_change_makes_the_next_version(store: GraphStore) -> None:
    first, _ = await apply(store, document(labels={"stage": "draft"}))
    second, created = await apply(store, document(value=2))
    assert created
    assert (second.graph_id, second.version) == (first.graph_id, 2)
    assert second.labels == {}
    assert second.updated_at > first.updated_at
    assert (await store.version(ACME, first.graph_id, 1)).fingerprint == first.fingerprint


async def test_old_document_is_published_again(store: GraphStore) -> None:
    await apply(store, document(description="one"))
    await apply(store, document(value=2))
    graph, created = await apply(store, document(description="one"))
    assert not created
    assert (graph.version, graph.description) == (1, "one")
    third, created = await apply(store, document(value=3))
    assert created
    assert third.version == 3


async def test_document_is_kept_in_canonical_form(store: GraphStore, pool: AsyncPool) -> None:
    given: JsonObject = {**document(), "params": {"z": 1e21, "ä": 0.1, "a": [1, True, None]}}
    await apply(store, given)
    async with pool.connection() as connection:
        row = await (
            await connection.execute("SELECT document FROM graphwright.graph_versions")
        ).fetchone()
    assert row is not None
    assert row["document"].encode() == canonical(given)


async def test_identical_posts_at_once_make_one_version(store: GraphStore) -> None:
    results = await asyncio.gather(*(apply(store, document()) for _ in range(8)))
    assert {(graph.graph_id, graph.version) for graph, _ in results} == {
        (results[0][0].graph_id, 1)
    }
    assert sum(created for _, created in results) == 1


async def test_different_posts_at_once_make_versions_in_a_row(store: GraphStore) -> None:
    results = await asyncio.gather(*(apply(store, document(value=n)) for n in range(8)))
    assert all(created for _, created in results)
    assert sorted(graph.version for graph, _ in results) == list(range(1, 9))
    assert len({graph.graph_id for graph, _ in results}) == 1


async def test_failure_leaves_nothing(store: GraphStore, pool: AsyncPool) -> None:
    unfit = Canonical(document(), "{}", "no fingerprint")
    with pytest.raises(psycopg.DataError):
        await store.apply(ACME, Publication(unfit, NODE_TYPES, "ann"))
    with pytest.raises(NotFound):
        await store.get(ACME, "digest")


async def test_get_by_id_and_by_name(store: GraphStore) -> None:
    graph, _ = await apply(store, document())
    assert await store.get(ACME, "digest") == graph
    assert await store.get(ACME, graph.graph_id) == graph


async def test_name_that_resembles_an_id(store: GraphStore) -> None:
    name = new_id().replace("-", "")  # 32 hex digits: no UUID in its usual form
    graph, _ = await apply(store, document(name))
    assert await store.get(ACME, name) == graph


async def test_each_of_many_that_are_read_at_once_gets_its_own(store: GraphStore) -> None:
    mine = [(await apply(store, document(f"g{number}")))[0] for number in range(12)]
    theirs = [(await apply(store, document(f"g{number}"), OTHER))[0] for number in range(3)]

    def asked(tenant: TenantId, graphs: list[Graph]) -> list[Coroutine[Any, Any, Graph]]:
        return [store.get(tenant, key) for graph in graphs for key in (graph.graph_id, graph.name)]

    *found, foreign, unknown = await asyncio.gather(
        *asked(ACME, mine), *asked(OTHER, theirs), store.get(ACME, theirs[0].graph_id),
        store.get(ACME, "none"), return_exceptions=True,
    )  # fmt: skip
    assert found == [graph for graph in mine + theirs for _ in range(2)]
    assert isinstance(foreign, NotFound)
    assert isinstance(unknown, NotFound)


async def test_tenants_do_not_see_each_other(store: GraphStore, database_url: str) -> None:
    graph, _ = await apply(store, document())
    version = await store.version(ACME, graph.graph_id)
    with pytest.raises(NotFound):
        await store.get(OTHER, "digest")
    with pytest.raises(NotFound):
        await store.get(OTHER, graph.graph_id)
    with pytest.raises(NotFound):
        await store.version(OTHER, graph.graph_id)
    with pytest.raises(NotFound):
        await store.document(OTHER, graph.graph_id, 1)
    assert (await store.list(OTHER, 10)).items == []
    with connect(database_url) as connection, pytest.raises(NotFound):
        load_version(connection, OTHER, version.graph_version_id)


async def test_tenants_may_use_the_same_name(store: GraphStore) -> None:
    ours, _ = await apply(store, document())
    theirs, created = await apply(store, document(), tenant=OTHER)
    assert created
    assert ours.graph_id != theirs.graph_id


async def test_unknown_version(store: GraphStore) -> None:
    graph, _ = await apply(store, document())
    with pytest.raises(NotFound, match="version 2"):
        await store.version(ACME, graph.graph_id, 2)
    with pytest.raises(NotFound, match="version 2"):
        await store.document(ACME, graph.graph_id, 2)


async def test_published_version_by_id_and_by_name(store: GraphStore) -> None:
    graph, _ = await apply(store, document())
    await apply(store, document(value=2))
    second = await store.version(ACME, graph.graph_id, 2)
    for known in ("digest", graph.graph_id):
        assert await store.published(ACME, known) == second
        with pytest.raises(NotFound):
            await store.published(OTHER, known)
    await apply(store, document())
    assert (await store.published(ACME, "digest")).version == 1
    for unknown in ("other", new_id(), "No name", ""):
        with pytest.raises(NotFound):
            await store.published(ACME, unknown)


async def test_load_version_for_a_worker(store: GraphStore, database_url: str) -> None:
    graph, _ = await apply(store, document())
    expected = await store.version(ACME, graph.graph_id)
    with connect(database_url) as connection:
        assert load_version(connection, ACME, expected.graph_version_id) == expected
        with pytest.raises(NotFound):
            load_version(connection, ACME, GraphVersionId(new_id()))


async def test_pages_cover_the_list_once(store: GraphStore) -> None:
    made = [(await apply(store, document(f"graph-{n}")))[0] for n in range(7)]
    seen: list[Graph] = []
    cursor: str | None = None
    for expected in (3, 3, 1):
        page = await store.list(ACME, 3, cursor)
        assert len(page.items) == expected
        seen.extend(page.items)
        cursor = page.next_cursor
    assert cursor is None
    assert seen == list(reversed(made))


async def test_page_that_just_fits_is_the_last(store: GraphStore) -> None:
    await apply(store, document())
    assert (await store.list(ACME, 1)).next_cursor is None


@pytest.mark.parametrize("cursor", ["", "x", "!!!!", "AAAA", "é" * 22])
async def test_bad_cursor(store: GraphStore, cursor: str) -> None:
    with pytest.raises(Invalid) as raised:
        await store.list(ACME, 3, cursor)
    assert raised.value.faults[0].code == "bad_cursor"


async def test_publishing_moves_a_graph_into_the_window(store: GraphStore, pool: AsyncPool) -> None:
    first, _ = await apply(store, document("one"))
    await apply(store, document("two"))
    await apply(store, document("one", value=2))
    async with pool.connection() as connection:
        rows = await (
            await connection.execute(
                "SELECT graph_id::text, tenant FROM graphwright.recent_graphs ORDER BY used_at DESC"
            )
        ).fetchall()
    assert len(rows) == 2
    assert rows[0] == {"graph_id": first.graph_id, "tenant": "acme"}


async def test_ensure_tenant_twice(store: GraphStore, pool: AsyncPool) -> None:
    await store.ensure_tenant(ACME)
    await store.ensure_tenant(ACME)
    async with pool.connection() as connection:
        rows = await (
            await connection.execute("SELECT tenant FROM graphwright.tenants WHERE tenant <> ''")
        ).fetchall()
    assert rows == [{"tenant": "acme"}]
