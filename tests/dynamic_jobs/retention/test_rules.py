"""What goes and what stays."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dynamic_jobs.retention import batch as batches
from dynamic_jobs.retention import walk
from dynamic_jobs.retention.removed import Removed
from foundation.database import Connection, connect
from foundation.ids import RunId, new_id
from foundation.object_store import ObjectStore, object_store
from foundation.settings import Settings
from tests.dynamic_jobs.retention.conftest import TABLES, ended_run, left, prune, sort_id

KEPT = {"short": 7, "usual": None, "long": 90, "unknown": None}
"""Tenants and their own days; ``unknown`` has no row at all. The others' days are 30."""
ENDED = ("succeeded", "failed", "cancelled")
NOT_ENDED = ("queued", "running", "waiting", "paused", "cancelling")


@dataclass(frozen=True)
class Spec:
    """A run: when it was made and ended, whose it is, and whose object its output is."""

    tenant: str
    status: str
    ended: float
    lasted: float
    shares: int | None
    repeats: int | None
    events: int

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


specs = st.builds(
    Spec,
    tenant=st.sampled_from(sorted(KEPT)),
    status=st.sampled_from(ENDED * 3 + NOT_ENDED),
    # Not within the seconds that the test takes.
    ended=st.sampled_from([0.5, 6.5, 7.5, 29.5, 30.5, 89.5, 90.5, 400.0]),
    lasted=st.sampled_from([0.0, 1.0, 60.0]),
    shares=st.none() | st.integers(0, 20),
    repeats=st.none() | st.integers(0, 20),
    events=st.integers(0, 4),
)


def survivors(runs: Sequence[Spec]) -> set[int]:
    """Those that are kept, by the rule as the documentation has it."""
    needed = {run.repeats for run in runs if not run.has_ended}
    return {
        i
        for i, run in enumerate(runs)
        if not run.has_ended or run.ended < (KEPT[run.tenant] or 30) or i in needed
    }


def linked(runs: Sequence[Spec]) -> list[Spec]:
    """With links that go to earlier runs of the same tenant, or nowhere."""
    found: list[Spec] = []
    for run in runs:
        mine = [i for i, other in enumerate(found) if other.tenant == run.tenant]

        def pick(number: int | None, mine: list[int] = mine) -> int | None:
            return mine[number % len(mine)] if number is not None and mine else None

        found.append(
            Spec(
                run.tenant, run.status, run.ended, run.lasted,
                pick(run.shares), pick(run.repeats), run.events,
            )
        )  # fmt: skip
    return found


class World:
    """Runs in the database and objects in the store, as these specs say."""

    def __init__(self, connection: Connection, objects: ObjectStore, runs: Sequence[Spec]) -> None:
        self.ids = [RunId(new_id()) for _ in runs]
        self.objects: dict[int, str] = {}
        self._connection = connection
        for table in (*TABLES, "graphwright.tenants", "graphwright.left_objects"):
            connection.execute(f"DELETE FROM {table} WHERE true")  # pyright: ignore
        connection.execute("INSERT INTO graphwright.tenants (tenant) VALUES ('')")
        for tenant, days in KEPT.items():
            if tenant != "unknown":
                connection.execute(
                    "INSERT INTO graphwright.tenants (tenant, retention_days) VALUES (%s, %s)",
                    (tenant, days),
                )
        for i, run in enumerate(runs):
            self._insert(i, run, objects)

    def _insert(self, i: int, run: Spec, objects: ObjectStore) -> None:
        run_id = self.ids[i]
        made = run.ended + run.lasted
        self._connection.execute(
            "INSERT INTO graphwright.runs (tenant, run_id, sort_id, graph_id, graph_version_id,"
            " parent_run_id, trigger, params, status, author, created_at, ended_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, '{}', '{}', %s, 'me',"
            " now() - %s * interval '1 day',"
            " CASE WHEN %s THEN now() - %s * interval '1 day' END)",
            (
                run.tenant, run_id, sort_id(made), new_id(), new_id(),
                None if run.repeats is None else self.ids[run.repeats],
                run.status, made, run.has_ended, run.ended,
            ),
        )  # fmt: skip
        self._connection.execute(
            "INSERT INTO runs (run_id, status, run_body) VALUES (%s, 'SUCCESS', '{}')", (run_id,)
        )
        self._connection.execute("INSERT INTO run_tags (run_id, key) VALUES (%s, 'a')", (run_id,))
        self._connection.execute(
            "INSERT INTO event_logs (run_id, event) SELECT %s, '{}' FROM generate_series(1, %s)",
            (run_id, run.events),
        )
        key = self.objects.get(run.shares) if run.shares is not None else None
        if key is None:
            key = f"outputs/{run.tenant}/{run_id}/node/1"
            objects.put(key, b"1")
        self.objects[i] = key
        self._connection.execute(
            "INSERT INTO graphwright.node_outputs (tenant, run_id, node, object_key, bytes)"
            " VALUES (%s, %s, 'node', %s, 1)",
            (run.tenant, run_id, key),
        )

    def rows(self, table: str) -> dict[str, int]:
        statement: Any = f"SELECT run_id::text, count(*) AS n FROM {table} GROUP BY run_id"
        return {row["run_id"]: row["n"] for row in self._connection.execute(statement)}


@hypothesis_settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    runs=st.lists(specs, max_size=14).map(linked),
    most_runs=st.sampled_from([1, 2, 5, 500]),
    most_tenants=st.sampled_from([1, 2, 1_000]),
    most_events=st.sampled_from([0, 3, 20_000]),
)
def test_only_what_should_go_goes(
    settings: Settings, runs: list[Spec], most_runs: int, most_tenants: int, most_events: int
) -> None:
    objects = object_store(settings.objects_url)
    with pytest.MonkeyPatch.context() as patch, connect(settings.database_url) as connection:
        patch.setattr(batches, "MOST_RUNS", most_runs)
        patch.setattr(walk, "MOST_TENANTS", most_tenants)
        patch.setattr(batches, "MOST_EVENTS", most_events)
        world = World(connection, objects, runs)
        kept = survivors(runs)
        gone = [run for i, run in enumerate(runs) if i not in kept]

        counted = prune(settings, dry_run=True)
        assert len(world.rows("graphwright.runs")) == len(runs), "a dry run removes nothing"
        assert (counted.runs, counted.events) == (len(gone), sum(run.events for run in gone))

        removed = prune(settings)
        assert (removed.runs, removed.events) == (counted.runs, counted.events)
        mine = {world.ids[i] for i in kept}
        for table in ("graphwright.runs", "graphwright.node_outputs", "runs", "run_tags"):
            assert set(world.rows(table)) == mine, table
        events = {world.ids[i]: runs[i].events for i in kept if runs[i].events}
        assert world.rows("event_logs") == events
        named = {world.objects[i] for i in kept}
        assert set(objects.keys("outputs")) >= named, "a re-run's object goes with the last of both"
        assert {key for key in world.objects.values() if key not in named}.isdisjoint(
            objects.keys("outputs")
        )
        assert prune(settings) == Removed()
        objects.delete(list(objects.keys("outputs")))


def test_what_is_no_runs_goes_too(settings: Settings, connection: Connection) -> None:
    ended_run(settings, 1)  # its tenant is visited
    connection.execute(
        "INSERT INTO graphwright.idempotency_keys (tenant, key, run_id, request, expires_at)"
        " SELECT 'acme', n, gen_random_uuid(), '', now() + (n - 2) * interval '1 hour'"
        " FROM generate_series(0, 5) n"
    )
    connection.execute(
        "INSERT INTO graphwright.tenant_days (tenant, day, runs)"
        " SELECT 'acme', %s - n, 1 FROM generate_series(0, 9) n",
        (day := datetime.now(UTC).date(),),
    )
    connection.execute(
        "INSERT INTO graphwright.recent_graphs (graph_id, tenant, used_at)"
        " SELECT gen_random_uuid(), 'acme', now() - n * interval '1 s'"
        " FROM generate_series(1, 1020) n"
    )
    removed = prune(settings.model_copy(update={"retention_days": 0}))
    midnights = (datetime.now(UTC).date() - day).days
    assert removed in [
        Removed(idempotency_keys=3, tenant_days=days, recent_graphs=20)
        for days in range(8, 9 + midnights)
    ]
    kept = connection.execute(
        "SELECT extract(epoch FROM max(used_at) - min(used_at))::int AS seconds"
        " FROM graphwright.recent_graphs"
    ).fetchone()
    assert kept == {"seconds": 999}


@pytest.mark.parametrize(
    ("own", "setting", "hours", "goes"),
    [
        (None, 0, 24, False),  # for ever
        (7, 0, 24, True),
        (2**31 - 1, 30, 24, False),
        (None, 3_000_000, 24, False),
        (7, 30, 24 * 40, False),  # its idempotency key leads to it
        (7, 30, 1e12, False),
    ],
)
def test_how_long_runs_are_kept(
    settings: Settings,
    connection: Connection,
    own: int | None,
    setting: int,
    hours: float,
    goes: bool,
) -> None:
    rows = ended_run(settings, 31)
    connection.execute("UPDATE graphwright.tenants SET retention_days = %s", (own,))
    changes = {"retention_days": setting, "idempotency_hours": hours}
    assert prune(settings.model_copy(update=changes)).runs == goes
    assert bool(left(connection, rows.run_id)) != goes
