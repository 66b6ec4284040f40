"""What is removed is found by an index, whatever the statistics say."""

from datetime import UTC, datetime
from typing import Any

import pytest

from dynamic_jobs.retention import aged_statements, statements
from foundation.database import Connection
from foundation.ids import new_id
from tests.dynamic_jobs.retention.conftest import sort_id

EXPLAINED: dict[str, dict[str, Any]] = {
    **{
        statement: {
            "tenant": "a", "sort_id": sort_id(9), "tenants": 9, "days": 3, "least_hours": 24.0,
            "most_days": 20_000,
        }
        for statement in (
            statements.VISIT_RUNS, aged_statements.VISIT_DELIVERIES,
            aged_statements.VISIT_BACKFILLS,
        )
    },
    **{
        statement: {
            "tenants": ["a"], "oldest": [sort_id(9)], "bounds": [sort_id(3)],
            "cutoffs": [datetime(2020, 1, 1, tzinfo=UTC)], "limit": 500,
        }
        for statement in (
            statements.OLD_RUNS, aged_statements.OLD_DELIVERIES, aged_statements.OLD_BACKFILLS,
        )
    },
    **{
        statement: {"tenants": ["a"], "ids": [new_id()]}
        for statement in (aged_statements.DELETE_DELIVERIES, aged_statements.DELETE_BACKFILLS)
    },
    aged_statements.DELETE_REFUSED: {"days": 7, "limit": 9},
    aged_statements.DELETE_DELIVERY_KEYS: {"limit": 9},
    **{
        statement: {"tenants": ["a"], "run_ids": [new_id()]}
        for statement in (
            statements.LOCK_RUNS, statements.REPEATED, statements.COUNT_EVENTS,
            statements.DELETE_EVENTS, statements.DELETE_NOTICES, statements.DELETE_TAGS,
            statements.DELETE_DAGSTER_RUNS, statements.DELETE_OUTPUTS, statements.DELETE_RUNS,
        )
    },
    statements.DELETE_DAYS: {"tenants": ["a"], "days": 1},
    statements.KEEP_OBJECTS: {"tenants": ["a"], "keys": ["b"]},
    statements.FORGET_OBJECTS: {"tenants": ["a"], "keys": ["b"]},
    statements.LEAVE_FOUND: {"tenant": "a", "folder": "b", "keys": ["c"]},
    statements.DELETE_KEYS: {"limit": 9},
    statements.DELETE_RECENT: {"limit": 9, "kept": 9},
}  # fmt: skip


@pytest.mark.parametrize("statement", EXPLAINED)
def test_what_is_removed_is_found_by_an_index(connection: Connection, statement: Any) -> None:
    with connection.transaction():
        connection.execute(statements.BY_INDEX)
        explain: Any = f"EXPLAIN {statement}"
        plan = connection.execute(explain, EXPLAINED[statement]).fetchall()
    text = "\n".join(row["QUERY PLAN"] for row in plan)
    assert "Index" in text
    assert "Seq Scan" not in text, text
