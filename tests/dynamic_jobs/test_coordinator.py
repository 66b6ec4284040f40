"""What the coordinator refuses of what Dagster launches."""

import pytest
from dagster import DagsterInstance

from dynamic_jobs.coordinator import GraphwrightRunCoordinator
from foundation.database import AsyncPool
from foundation.errors import Invalid
from foundation.ids import GraphId
from foundation.tenant_pool import TenantPool
from graph_defs.store import GraphStore
from tests.dynamic_jobs.conftest import TENANT, Bench
from tests.dynamic_jobs.test_adopting import OURS, adopt, instance, launched

__all__ = ["instance"]


def test_a_graph_that_was_deleted_is_not_launched(bench: Bench, instance: DagsterInstance) -> None:
    """Dagster's UI lists it until its next reload, and shows its runs for longer."""
    run_id = launched(bench, name="gone")

    async def delete(pool: AsyncPool) -> GraphId:
        return await GraphStore(TenantPool(pool)).delete(TENANT, "gone")

    bench.with_pool(delete)
    run, coordinator = instance.get_run_by_id(run_id), instance.run_coordinator
    assert run is not None and isinstance(coordinator, GraphwrightRunCoordinator)
    with pytest.raises(Invalid, match="the graph gone was deleted"):
        coordinator.enqueue(run)
    for table in OURS:
        assert not bench.connection.execute(f"SELECT FROM {table}").fetchall()  # type: ignore
    assert adopt(bench, instance) == 1  # whoever launched it may not have waited for the answer
    run = instance.get_run_by_id(run_id)
    assert run is not None and run.status.value == "FAILURE"
