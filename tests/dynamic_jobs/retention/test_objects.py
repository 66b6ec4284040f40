"""Large outputs: they go after the rows that name them, and only when no row does."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from dynamic_jobs.executing.outputs import OutputStore, adopt_outputs
from dynamic_jobs.retention.removed import Removed
from foundation.database import Connection, connect
from foundation.ids import NodeId
from foundation.object_store import ObjectStore, ObjectStoreAway
from foundation.settings import Settings
from tests.dynamic_jobs.conftest import TENANT, Bench
from tests.dynamic_jobs.retention.conftest import age, large_run, left, left_objects, prune

WAITING = """
SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


def test_objects_are_deleted_once_the_store_is_back(
    bench: Bench, connection: Connection, objects: ObjectStore, settings: Settings
) -> None:
    run_id = large_run(bench, 31)
    folder = settings.state / "objects"
    away = folder.rename(settings.state / "away")
    folder.write_text("no folder")
    with pytest.raises(ObjectStoreAway):
        prune(settings)
    assert left(connection, run_id) == set()
    assert len(left_objects(connection)) == 1, "what is to be deleted is not forgotten"
    folder.unlink()
    away.rename(folder)
    assert prune(settings) == Removed(objects=1)
    assert list(objects.keys("outputs")) == []


def test_objects_that_no_row_ever_named_go_with_their_run(
    bench: Bench, connection: Connection, objects: ObjectStore, settings: Settings
) -> None:
    """A worker that is killed between object and row leaves one, and the run comes back."""
    killed, failed, heir = (large_run(bench, days) for days in (31, 31, 1))
    store = OutputStore(objects, 10)
    for run_id in (killed, failed):
        store.put(TENANT, run_id, NodeId("one"), "x" * 1_000)
    connection.execute(
        "DELETE FROM graphwright.node_outputs WHERE run_id = ANY(%s)", ([heir, failed],)
    )
    adopt_outputs(connection, TENANT, killed, heir, [NodeId("one")])
    connection.execute("UPDATE graphwright.runs SET epoch = 2 WHERE run_id = %s", (killed,))
    connection.execute("UPDATE graphwright.runs SET status = 'failed' WHERE run_id = %s", (failed,))
    (named,) = (
        row["object_key"]
        for row in connection.execute(
            "SELECT object_key FROM graphwright.node_outputs WHERE run_id = %s", (heir,)
        )
    )
    assert len([key for key in objects.keys("outputs") if heir not in key]) == 4
    assert prune(settings).objects == 3
    assert [key for key in objects.keys("outputs") if heir not in key] == [named]
    assert left_objects(connection) == []


def test_a_rerun_that_is_taking_outputs_over_keeps_the_objects(
    bench: Bench, connection: Connection, objects: ObjectStore, settings: Settings
) -> None:
    """The parent's row of the node is locked by the re-run, and its removal waits for that."""
    parent, child = large_run(bench, 31), large_run(bench, 1)
    (key,) = (name for name in objects.keys("outputs") if parent in name)
    connection.execute("DELETE FROM graphwright.node_outputs WHERE run_id = %s", (child,))
    with ThreadPoolExecutor(1) as threads:
        with connection.transaction():
            adopt_outputs(connection, TENANT, parent, child, [NodeId("one")])
            pruning = threads.submit(prune, settings)
            with connect(settings.database_url) as other:
                while other.execute(WAITING).fetchone() is None:
                    assert not pruning.done(), pruning.result()
        assert pruning.result().runs == 1
    assert left(connection, parent) == set()
    assert objects.get(key) == b'"' + b"x" * 1_000 + b'"'
    age(connection, child, 31)
    assert prune(settings).objects >= 1
    assert key not in set(objects.keys("outputs"))
