"""Whose runs a claim takes, in which order, and what it reads for that."""

import asyncio
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import pytest

from dynamic_jobs.queueing.claiming import CLAIM, FIRST_TURN, Claim, Turn, claim
from foundation.database import Connection, async_connect, connect
from foundation.ids import TenantId, new_id

HEAVY: Final = TenantId("heavy")
LIGHT: Final = tuple(TenantId(f"light-{number:02}") for number in range(20))
"""All of them follow on ``heavy``; ``anton`` comes before it."""
MANY: Final = 20_000

FILL: Final[LiteralString] = """
WITH made AS (
    INSERT INTO graphwright.runs (
        tenant, run_id, sort_id, graph_id, graph_version_id, trigger, params, status, author
    )
    SELECT %(tenant)s, gen_random_uuid(), gen_random_uuid(), %(graph)s, %(graph)s, '{}', '{}',
        'queued', 'tester'
    FROM generate_series(1, %(count)s)
    RETURNING tenant, run_id, graph_id
)
INSERT INTO graphwright.run_queue (run_id, tenant, graph_id, state, priority, not_before)
SELECT run_id, tenant, graph_id, 'ready', %(priority)s, now() - random() * interval '1 day'
FROM made
"""


@dataclass
class Filled:
    """A queue, and workers that claim from it; nobody executes anything."""

    url: str
    connection: Connection

    def fill(self, tenant: str, count: int, priority: int = 0) -> None:
        values = {"tenant": tenant, "graph": new_id(), "count": count, "priority": priority}
        self.connection.execute(FILL, values)

    def weigh(self, **weights: int) -> None:
        for tenant, weight in weights.items():
            self.connection.execute(
                "INSERT INTO graphwright.tenants (tenant, weight) VALUES (%s, %s)", (tenant, weight)
            )

    def claims(self, limit: int, times: int = 1, turn: Turn = FIRST_TURN) -> list[Claim]:
        """What one worker claims, one claim after the other."""

        async def work() -> list[Claim]:
            found: list[Claim] = []
            now = turn
            async with await async_connect(self.url) as connection:
                for _ in range(times):
                    claimed = await claim(connection, new_id(), limit, now)
                    found += claimed
                    now = claimed[-1].turn if claimed else now
            return found

        return asyncio.run(work())

    def plan(self, limit: int, turn: Turn) -> dict[str, Any]:
        """What PostgreSQL does for a claim, which is taken back."""
        values = {"worker": new_id(), "limit": limit, "after": turn.tenant, "left": turn.left}
        with self.connection.transaction(force_rollback=True):
            explain = "EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) "
            row = self.connection.execute(explain + CLAIM, values).fetchone()
        assert row is not None
        return row["QUERY PLAN"][0]["Plan"]


@pytest.fixture
def queue(database_url: str) -> Generator[Filled]:
    with connect(database_url) as connection:
        yield Filled(database_url, connection)


def tenants(claims: list[Claim]) -> list[str]:
    return [claimed.lease.tenant for claimed in claims]


@pytest.mark.parametrize("limit", [1, 3, 8, 32])
def test_a_light_tenants_run_is_claimed_within_one_round(queue: Filled, limit: int) -> None:
    """Wherever the worker stands, and whatever the others have queued."""
    weights = {HEAVY: 5} | dict.fromkeys((TenantId("anton"), *LIGHT), 1)
    queue.fill(HEAVY, MANY)
    queue.weigh(**{HEAVY: 5})
    places = ["", "anton", HEAVY, LIGHT[0], LIGHT[10], LIGHT[19], "zoe"]
    turns = [Turn(TenantId(each)) for each in places] + [Turn(HEAVY, 4), Turn(LIGHT[3], 1)]
    for begin in turns:
        turn = begin
        for tenant in weights.keys() - {HEAVY}:
            queue.fill(tenant, 1)
        found: list[str] = []
        while not weights.keys() <= set(found):
            claims = queue.claims(limit, turn=turn)
            found += tenants(claims)
            turn = claims[-1].turn
        until_all_had_one = found[: max(found.index(tenant) for tenant in weights) + 1]
        assert len(until_all_had_one) <= sum(weights.values()) + 4, "4 were left of a turn"
        assert Counter(until_all_had_one)[HEAVY] <= 5 + 4


@pytest.mark.parametrize("limit", [1, 2, 5, 7, 32, 100])
def test_tenants_get_runs_by_their_weights(queue: Filled, limit: int) -> None:
    """Also where a busy worker claims one run at a time."""
    queue.weigh(a=1, b=2, c=4)
    for tenant in "abc":
        queue.fill(tenant, 1_000)
    claimed = tenants(queue.claims(limit, times=-(-140 // limit)))[:140]
    shares = Counter(claimed)
    for tenant, weight in (("a", 1), ("b", 2), ("c", 4)):
        in_full_rounds = len(claimed) / 7 * weight
        assert abs(shares[tenant] - in_full_rounds) <= max(4, limit // 7 * weight), shares


def test_within_a_tenant_priority_goes_first_then_age(queue: Filled) -> None:
    for priority in (0, 7, -3):
        queue.fill(HEAVY, 40, priority)
    rows = queue.connection.execute(
        "SELECT run_id::text FROM graphwright.run_queue ORDER BY priority DESC, not_before, run_id"
    ).fetchall()
    found = [claimed.lease.run_id for claimed in queue.claims(1, times=120)]
    assert found == [row["run_id"] for row in rows]


def test_priority_gives_a_tenant_nothing_at_anothers_cost(queue: Filled) -> None:
    queue.fill("a", 50, priority=1_000)
    queue.fill("b", 50, priority=-1_000)
    assert tenants(queue.claims(1, times=10)) == ["a", "b"] * 5


@pytest.mark.parametrize("limit", [1, 32])
def test_a_claim_reads_no_more_of_a_long_queue(queue: Filled, limit: int) -> None:
    """By rows that PostgreSQL reads, with statistics that are right and with none at all."""
    for tenant in LIGHT:
        queue.fill(tenant, 2)
    queue.fill(HEAVY, 200)
    turns = [FIRST_TURN, Turn(HEAVY), Turn(HEAVY, 3), Turn(LIGHT[10])]
    short = [rows_read(queue.plan(limit, turn)) for turn in turns]
    queue.fill(HEAVY, MANY)
    unanalyzed = [rows_read(queue.plan(limit, turn)) for turn in turns]
    for table in ("run_queue", "runs"):
        queue.connection.execute(f"ANALYZE graphwright.{table}")  # type: ignore
    long = [rows_read(queue.plan(limit, turn)) for turn in turns]
    for few, many, by_guess in zip(short, long, unanalyzed, strict=True):
        assert many <= 1.5 * few + 10
        assert by_guess <= 1.5 * few + 10


def rows_read(plan: dict[str, Any]) -> int:
    """The rows of tables that a plan read, those that it threw away included."""
    removed = plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
    rows = (plan["Actual Rows"] + removed) * plan["Actual Loops"] if "Relation Name" in plan else 0
    return rows + sum(rows_read(each) for each in plan.get("Plans", []))
