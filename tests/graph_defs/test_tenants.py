"""Shares and quotas of tenants, and the quota of graphs."""

from collections.abc import Generator
from typing import Any

import pytest
from psycopg.errors import CheckViolation

from foundation.database import AsyncPool, Connection, async_pool, connect
from foundation.errors import NotFound, QuotaExceeded
from foundation.ids import TenantId
from foundation.settings import Settings
from foundation.tenant_pool import TenantPool
from graph_defs.fingerprint import Canonical
from graph_defs.json_values import JsonObject
from graph_defs.placement_policy import PlacementPolicy
from graph_defs.publishing import Publication
from graph_defs.store import GraphStore
from graph_defs.tenants import (
    DEFAULT,
    TenantPolicy,
    change_policy,
    list_policies,
    read_policy,
)

ACME, OTHER = TenantId("acme"), TenantId("other")
USUAL: Any = {
    "isolations": ("warm", "process"),
    "placement": PlacementPolicy.model_validate({}),
}


@pytest.fixture
def connection(settings: Settings) -> Generator[Connection]:
    with connect(settings.database_url) as opened:
        opened.execute("INSERT INTO graphwright.tenants (tenant) VALUES ('acme'), ('other')")
        yield opened


def test_own_values_go_before_the_defaults(connection: Connection) -> None:
    change_policy(connection, DEFAULT, {"weight": 2, "max_queued": 10})
    change_policy(connection, ACME, {"max_queued": 99, "max_graphs": 0})
    assert read_policy(connection, ACME, effective=True) == TenantPolicy(
        ACME, weight=2, max_queued=99, max_graphs=0, **USUAL
    )
    assert read_policy(connection, OTHER, effective=True) == TenantPolicy(
        OTHER, weight=2, max_queued=10, **USUAL
    )
    assert change_policy(connection, ACME, {"max_queued": None}) == TenantPolicy(ACME, max_graphs=0)
    assert read_policy(connection, ACME, effective=True).max_queued == 10


def test_a_tenant_without_values_has_weight_one_and_no_bounds(connection: Connection) -> None:
    assert read_policy(connection, ACME, effective=True) == TenantPolicy(ACME, weight=1, **USUAL)


def test_lists_tenants_but_not_the_defaults(connection: Connection) -> None:
    assert [policy.tenant for policy in list_policies(connection, "", 10)] == [ACME, OTHER]
    assert [policy.tenant for policy in list_policies(connection, ACME, 10)] == [OTHER]


def test_where_a_tenant_may_have_its_runs(connection: Connection) -> None:
    policy = PlacementPolicy.model_validate({"kubernetes": {"service_accounts": ["etl"]}})
    change_policy(connection, DEFAULT, {"isolations": ("warm", "docker")})
    own = change_policy(connection, ACME, {"placement": policy})
    assert own == TenantPolicy(ACME, placement=policy)
    assert own.as_dict()["placement"] == {"kubernetes": {"service_accounts": ["etl"]}}
    held = read_policy(connection, ACME, effective=True)
    assert (held.isolations, held.placement) == (("warm", "docker"), policy)
    assert change_policy(connection, ACME, {"placement": None}) == TenantPolicy(ACME)
    with pytest.raises(CheckViolation):
        change_policy(connection, ACME, {"isolations": ("cloud",)})


def test_an_unknown_tenant(connection: Connection) -> None:
    with pytest.raises(NotFound):
        read_policy(connection, TenantId("nobody"))
    with pytest.raises(NotFound):
        change_policy(connection, TenantId("nobody"), {"weight": 2})


async def _apply(pool: AsyncPool, name: str, title: str = "") -> None:
    document: JsonObject = {
        "apiVersion": "graphwright/v1",
        "kind": "Graph",
        "metadata": {"name": name, "description": title},
        "nodes": {"a": {"type": "data.transform", "with": {"value": 1}}},
    }
    await GraphStore(TenantPool(pool)).apply(ACME, Publication(Canonical.of(document), {}, "ann"))


@pytest.mark.anyio
async def test_no_more_graphs_than_the_quota(connection: Connection, settings: Settings) -> None:
    change_policy(connection, ACME, {"max_graphs": 2})
    async with async_pool(settings.database_url, size=1) as pool:
        await _apply(pool, "one")
        await _apply(pool, "two")
        with pytest.raises(QuotaExceeded, match="as many graphs as it may have") as refused:
            await _apply(pool, "three")
        assert refused.value.ids["quota"] == "max_graphs"
        await _apply(pool, "two", "changed")  # a new version is no new graph
    row = connection.execute("SELECT count(*) AS n FROM graphwright.graphs").fetchone()
    assert row == {"n": 2}
