"""What publishing a graph anew does to its timers."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from foundation.database import AsyncPool, connect
from graph_defs.trigger_store import StoredTrigger
from graph_defs.trigger_sync import set_timer
from graph_defs.triggers import TimerTrigger
from tests.dynamic_jobs.conftest import TENANT, graph, value
from tests.schedules.conftest import Timers
from tests.schedules.test_dispatching_at_once import waiting_backend


def publish(timers: Timers, **trigger: object) -> None:
    timers.bench.publish(
        graph(
            {"a": value(1)},
            params={"type": "object"},
            triggers={"nightly": {"type": "timer", **trigger}},
        )
    )


def due_at(timers: Timers, trigger: StoredTrigger) -> datetime:
    row = timers.row(trigger)
    assert row is not None
    return row["due_at"]


def test_a_due_time_that_has_come_is_kept(timers: Timers) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    trigger = timers.publish({"every": "1d"}, now - timedelta(seconds=1))
    publish(timers, every="366d")  # often, and another due time may come meanwhile
    assert due_at(timers, trigger) == now - timedelta(seconds=1)
    timers.dispatch(datetime.now(UTC))
    assert len(timers.fired()) == 1


def test_a_due_time_that_comes_while_its_graph_is_published_is_kept(timers: Timers) -> None:
    trigger = timers.publish({"every": "1d"}, datetime(2099, 1, 1, tzinfo=UTC))

    async def work(pool: AsyncPool) -> datetime:
        async with pool.connection() as connection, connection.transaction():
            row = await (await connection.execute("SELECT now()")).fetchone()
            assert row is not None
            while (due := datetime.now(UTC)) <= row["now"]:
                pass
            # It has come since the transaction began.
            await connection.execute("UPDATE graphwright.timers SET due_at = %s", (due,))
            timer = TimerTrigger.model_validate({"type": "timer", "every": "1h"})
            await set_timer(connection, TENANT, trigger.trigger_id, timer)
            return due

    due = timers.bench.with_pool(work)
    assert due_at(timers, trigger) == due


def test_the_last_due_time_is_kept_where_no_other_follows(timers: Timers) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    trigger = timers.publish({"every": "1h"}, now)
    timers.set(trigger, now, now + timedelta(minutes=5))  # held back by jitter
    publish(timers, every="1h", jitter="10m", not_after=f"{now:%Y-%m-%dT%H:%M:%SZ}")
    assert due_at(timers, trigger) == now


def test_a_due_time_that_a_dispatcher_sets_meanwhile_goes_too(timers: Timers) -> None:
    due = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
    trigger = timers.publish({"every": "1h"}, due)
    never = {"every": "1h", "not_after": "2020-01-01T00:00:00Z"}
    publishing = threading.Thread(target=publish, args=(timers,), kwargs=never)
    with connect(timers.bench.settings.database_url) as other, other.transaction():
        other.execute("UPDATE graphwright.timers SET due_at = '2099-01-01', fire_at = '2099-01-01'")
        publishing.start()
        waiting_backend(timers.bench.connection)
    publishing.join()
    assert timers.row(trigger) is None


def test_due_times_to_come_go_where_the_new_ones_have_ended(timers: Timers) -> None:
    trigger = timers.publish({"every": "1h"}, datetime(2099, 1, 1, tzinfo=UTC))
    publish(timers, every="1h", not_after="2020-01-01T00:00:00Z")
    assert timers.row(trigger) is None


@pytest.mark.parametrize(
    "changed", [{"every": "2h"}, {"every": "1h", "not_after": "2020-01-01T00:00:00Z"}]
)
def test_a_timer_that_is_changed_goes_back_to_the_quick_lane(
    timers: Timers, changed: dict[str, str]
) -> None:
    due = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
    trigger = timers.publish({"every": "1h"}, due)
    timers.bench.connection.execute("UPDATE graphwright.timers SET lane = 'costly'")
    publish(timers, **changed)
    assert timers.row(trigger) == {"due_at": due, "fire_at": due, "lane": "quick"}


def test_a_due_time_to_come_is_the_new_one(timers: Timers) -> None:
    trigger = timers.publish({"cron": "0 0 1 1 *"}, datetime(2099, 1, 1, tzinfo=UTC))
    publish(timers, every="1h")
    assert due_at(timers, trigger) < datetime.now(UTC) + timedelta(hours=1)


def test_a_timer_that_is_published_unchanged_stays_as_it_is(timers: Timers) -> None:
    due = datetime(2099, 1, 1, tzinfo=UTC)
    trigger = timers.publish({"every": "1h"}, due)
    timers.bench.publish(
        graph(
            {"a": value(2)},
            params={"type": "object"},
            triggers={"nightly": {"type": "timer", "every": "1h"}},
        )
    )
    assert due_at(timers, trigger) == due


def test_a_timer_that_is_left_out_fires_no_more(timers: Timers) -> None:
    trigger = timers.publish({"every": "1h"}, datetime(2020, 1, 1, tzinfo=UTC))
    timers.bench.publish(graph({"a": value(1)}, params={"type": "object"}))
    assert timers.row(trigger) is None
    timers.dispatch(datetime.now(UTC))
    assert timers.fired() == []
