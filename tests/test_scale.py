"""The simulation behind docs/scale.md: against theory, and for what cannot be otherwise."""

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, LiteralString

import pytest

from bench.scale import page, table
from bench.scale.costs import read
from bench.scale.counting import distance, log_since, written
from bench.scale.figures import figures
from bench.scale.measured import by_formula
from bench.scale.queueing import Discipline, Job, Station, erlang_c, mean_wait, simulate, touched
from bench.scale.scenes import Cell, Scene, play
from bench.scale.sizing import DAY, Demand, Machines, cold_pages, size
from bench.scale.spreading import PLACES
from foundation.database import connect

COSTS = read()
INDEXES: Final[LiteralString] = """
SELECT indexrelid::regclass::text AS name FROM pg_index
WHERE indpred IS NULL AND indrelid = ANY(%(tables)s::regclass[])
"""
KEEP_LOG: Final[LiteralString] = """
SELECT pg_create_physical_replication_slot('graphwright_test_scale', true, true)
"""
"""Until the session ends: by then a checkpoint may have removed what other tests write."""
DEMAND = Demand(users=1e6, graphs=1e9, runs_a_user_a_day=24)
CELL = Cell(
    tenants=1_000, rate=100.0, burst=2_000, seconds=(0.002, 0.002, 0.002), servers=(40, 1, 4)
)
"""As fast a log as makes it half busy."""


def poisson(rate: float, service: float, count: int) -> Iterator[Job]:
    draw, at = random.Random(1), 0.0
    for _ in range(count):
        at += draw.expovariate(rate)
        yield Job(at, draw.randrange(50), (draw.expovariate(1 / service),))


@pytest.mark.parametrize(("servers", "rate"), [(1, 0.7), (20, 17.0)])
@pytest.mark.parametrize("discipline", ["fifo", "fair"])
def test_waits_are_those_of_erlang(servers: int, rate: float, discipline: Discipline) -> None:
    # Neither discipline knows how long a job takes, so the mean is the same (Kleinrock 1965).
    jobs = poisson(rate, 1.0, 40_000)
    done = list(simulate(jobs, [Station(servers, discipline)]))
    settled = [each.waited for each in done if each.job.at > done[-1].at / 10]
    assert sum(settled) / len(settled) == pytest.approx(mean_wait(servers, rate, 1.0), rel=0.15)


def test_erlang_c_as_tabulated() -> None:
    assert erlang_c(1, 0.5) == pytest.approx(0.5)  # of one server, its utilization
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert erlang_c(10, 8.0) == pytest.approx(0.409, abs=0.001)
    with pytest.raises(ValueError, match="load"):
        erlang_c(2, 2.0)


def test_what_comes_leaves_once_and_after_its_services() -> None:
    draw = random.Random(2)
    jobs = [
        Job(float(number // 3), number % 7, (draw.random(), draw.random()), str(number))
        for number in range(900)
    ]
    done = list(simulate(jobs, [Station(1), Station(2, "fair")]))
    assert Counter(each.job.kind for each in done) == Counter(each.kind for each in jobs)
    for each in done:
        took = each.at - each.job.at
        assert took == pytest.approx(sum(each.job.services) + each.waited)
        assert each.waited > -1e-9


def test_the_mean_number_of_those_who_wait_follows_from_littles_law() -> None:
    done = list(simulate(poisson(0.8, 1.0, 20_000), [Station(1)]))
    end = max(each.at for each in done)
    # The area below the number in the system, from comings and goings in order of time.
    steps = sorted([(each.job.at, 1) for each in done] + [(each.at, -1) for each in done])
    area, inside, before = 0.0, 0, 0.0
    for at, step in steps:
        area, inside, before = area + inside * (at - before), inside + step, at
    mean = sum(each.at - each.job.at for each in done) / len(done)
    assert area / end == pytest.approx(len(done) / end * mean)


def test_a_flood_holds_up_others_unless_tenants_take_turns() -> None:
    flood = Scene("", flood=5_000)
    alone = play(Scene(""), CELL, seconds=60.0)
    fair = play(flood, CELL, seconds=60.0)
    first_come = play(replace(flood, discipline="fifo"), CELL, seconds=60.0)
    assert first_come.p99 > 10 * fair.p99
    assert alone.p99 <= fair.p99 < 1.0


def test_turns_do_not_help_where_every_tenant_comes_at_once_but_jitter_does() -> None:
    hour = Scene("", hour=True)
    at_once = play(hour, CELL, seconds=60.0)
    spread = play(replace(hour, jitter=60.0), CELL, seconds=60.0)
    assert at_once.p99 > 1.0
    assert spread.p99 < at_once.p99 / 10
    assert at_once == play(hour, CELL, seconds=60.0), "the same every time"


def test_more_of_anything_is_never_fewer_cells() -> None:
    smaller = size(DEMAND, COSTS, Machines())
    for more in (
        replace(DEMAND, runs_a_user_a_day=30),
        replace(DEMAND, users=2e6),
        replace(DEMAND, graphs=2e9),
        replace(DEMAND, retention_days=60),
        replace(DEMAND, peak=5),
    ):
        larger = size(more, COSTS, Machines())
        # More cells have more memory, so that fewer pages have to be read.
        same = set(smaller.cells) - {"page operations"}
        assert all(larger.cells[name] >= smaller.cells[name] for name in same)
        assert larger.machines["cells"] >= smaller.machines["cells"]
        assert larger != smaller


def test_cells_bear_each_limit() -> None:
    sizing = size(DEMAND, COSTS, Machines())
    cells = sizing.machines["cells"]
    assert sum(sizing.stored.values()) / cells <= Machines().stored_bytes
    assert sizing.log_bytes / cells <= Machines().log_bytes
    assert cells - 1 < sizing.cells[sizing.limits[0]] <= cells, "and are not more than that"


def test_removal_is_in_the_log_and_in_page_operations_at_the_mean_rate() -> None:
    twice = COSTS.removal.model_copy(
        update={
            name: 2 * getattr(COSTS.removal, name)
            for name in ("wal_bytes", "vacuum_bytes", "wal_pages", "vacuum_pages")
        }
    )
    once = size(DEMAND, COSTS, Machines())
    more = size(DEMAND, COSTS.model_copy(update={"removal": twice}), Machines())
    added = DEMAND.mean * (COSTS.removal.wal_bytes + COSTS.removal.vacuum_bytes)
    assert more.log_bytes - once.log_bytes == pytest.approx(added)
    pages = 2 * DEMAND.mean * (COSTS.removal.wal_pages + COSTS.removal.vacuum_pages)
    assert more.operations["removal"] - once.operations["removal"] == pytest.approx(pages)
    busier = size(replace(DEMAND, peak=6), COSTS, Machines())
    assert busier.log["removal"] == once.log["removal"]


def test_the_formula_gives_the_whole_pages_that_were_counted() -> None:
    assert by_formula(COSTS) == pytest.approx(COSTS.spread.pages, rel=0.2)


def test_the_places_are_all_indexes_of_ours_that_each_run_enters(database_url: str) -> None:
    with connect(database_url) as database:
        tables = [f"graphwright.{name}" for name in ("runs", "audit", "node_outputs")]
        rows = database.execute(INDEXES, {"tables": tables}).fetchall()
    ours = {name for name in PLACES if name.startswith("graphwright.")}
    assert {row["name"] for row in rows} == ours
    assert set(COSTS.spread.trees) == set(PLACES), "`python -m bench.scale measure`"


def test_the_log_is_read_since_where_it_was(database_url: str) -> None:
    with connect(database_url) as database:
        database.execute(KEEP_LOG)
        begin = written(database)
        database.execute(
            "CREATE TABLE filled AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)"
        )
        log = log_since(database, begin)
        assert log.bytes >= 1_000_000
        assert log.bytes <= distance(database, begin)
        assert 0 <= log.page_bytes <= log.bytes
        assert bool(log.pages) == bool(log.page_bytes)


def test_whole_pages_a_run_are_at_most_one_for_each_place() -> None:
    places = sum(tree.places for tree in COSTS.spread.trees.values())
    assert cold_pages(COSTS.spread, 1e12, 1_000) == pytest.approx(places, rel=0.01)
    assert cold_pages(COSTS.spread, 1_000, 1e9) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("limit", size(DEMAND, COSTS, Machines()).limits)
def test_one_database_is_full_at_the_rate_at_which_it_reaches_a_limit(limit: str) -> None:
    rate = table.reached(COSTS, limit)
    demand = Demand(users=1e6, graphs=0, runs_a_user_a_day=rate * DAY / 1e6)
    assert size(demand, COSTS, Machines()).cells[limit] == pytest.approx(1)


def test_a_database_that_graphs_fill_has_no_room_for_runs() -> None:
    assert table.reached(COSTS, "rows stored", 1e12) == 0


def test_pages_are_touched_at_most_once_each() -> None:
    assert touched(100, 1) == pytest.approx(1, rel=0.01)
    assert touched(100, 100_000) == pytest.approx(100)
    assert touched(0, 10) == 0
    draw = random.Random(3)
    assert len({draw.randrange(1_000) for _ in range(1_500)}) == pytest.approx(
        touched(1_000, 1_500), rel=0.05
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.soak if name == "scenes" else ())
        for name in page.TABLES
    ],
)
def test_the_page_has_the_tables_that_the_simulation_makes(name: str) -> None:
    text = page.PAGE.read_text()
    assert page.filled(text, name, page.TABLES[name](COSTS)) == text, (
        "`python -m bench.scale` writes it"
    )


def test_the_sentences_of_the_page_have_the_numbers_that_are_computed() -> None:
    text = page.PAGE.read_text()
    assert page.told(text, COSTS) == text, "`python -m bench.scale` writes them"
    assert {mark[2] for mark in page.NUMBER.finditer(text)} == set(figures(COSTS))


def test_the_page_explains_the_limits_in_the_order_in_which_they_are_reached() -> None:
    named = re.findall(r"^\d\. \*\*([^*]+?)\.?\*\*", page.PAGE.read_text(), re.MULTILINE)
    limits = size(DEMAND, COSTS, Machines()).limits
    explained = [each.lower() for each in named if each.lower() in limits]
    assert explained == limits
    short, _, _ = page.PAGE.read_text().partition("## What was measured")
    assert re.findall(r"\*\*([^*]+)\*\*", short)[-3:] == limits[:3]


def test_no_measure_on_the_page_is_written_by_hand() -> None:
    text = page.NUMBER.sub("", page.PAGE.read_text())
    for name in page.TABLES:
        text = page.filled(text, name, "")
    units = "k?B|MB|GB|TB|ms|cells|runs a second|whole pages"
    assert not re.findall(rf"\d[\d,.]* (?:{units})\b.*|\d %.*", text)
