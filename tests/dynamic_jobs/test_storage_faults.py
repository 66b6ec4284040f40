"""What may go wrong around the event writer costs only what it concerns."""

import secrets
import time
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, LiteralString
from urllib.parse import parse_qs, quote, urlencode, urlsplit, urlunsplit

import psutil
import pytest
from dagster import DagsterEventType, DagsterRun, MetadataValue

from dynamic_jobs.controlling.records import run_record
from dynamic_jobs.executing import step_events
from dynamic_jobs.executing.run_log import RunLog
from dynamic_jobs.executing.step_events import StepEvent
from dynamic_jobs.storage import EventRefused, EventWriter, Lease, LeaseLost
from dynamic_jobs.storage.batch import Entry
from dynamic_jobs.storage.commit import Committer, Refusals
from dynamic_jobs.storage.publisher import Publisher
from dynamic_jobs.storage.records import Record
from foundation.database import Connection, connect
from foundation.errors import Unavailable
from foundation.ids import NodeId, RunId, new_id
from foundation.settings import Settings
from graphwright.embedded import EmbeddedPostgres
from tests import services
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value
from tests.dynamic_jobs.test_writer import LOCK_RUN, line, listening, outcome, refused, stored

# SQLSTATE 54000, as for an index row that is too long: psycopg calls that an OperationalError too.
REFUSE_SUCCESS: Final[LiteralString] = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'too much' USING ERRCODE = '54000';
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON event_logs FOR EACH ROW
WHEN (NEW.dagster_event_type = 'PIPELINE_SUCCESS') EXECUTE FUNCTION refuse();
"""

BLOCKED: Final[LiteralString] = """
SELECT backend_xid::text AS transaction FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@pytest.fixture
def writer(settings: Settings) -> Generator[EventWriter]:
    opened = EventWriter(settings.database_url, Publisher(settings.redis_url))
    yield opened
    opened.close()


@pytest.fixture
def runs(bench: Bench) -> list[RunId]:
    version = bench.publish(graph({"one": value(1)}))
    return [bench.start(version) for _ in range(2)]


def record(run_id: RunId, event: StepEvent) -> Record:
    return Record.of(event.entry(job="job", run=run_id, node="one", time=time.time(), pid=1))


def blocked(connection: Connection) -> str | None:
    """The transaction that waits for a lock, once there is one, if it has written something."""
    while (row := connection.execute(BLOCKED).fetchone()) is None:
        pass
    return row["transaction"]


def test_a_record_that_no_retry_helps_does_not_hold_up_the_others(
    bench: Bench, writer: EventWriter, runs: Sequence[RunId]
) -> None:
    poisoned, other = runs
    key = secrets.token_hex(4_000)  # longer than a row of its index may be
    writer.append(record(poisoned, step_events.materialized([key], {})), line(other, "innocent"))
    writer.flush(other, timeout=60)
    with pytest.raises(EventRefused):
        writer.flush(poisoned)
    assert stored(bench, other) == ["innocent"]


def test_a_run_whose_end_is_refused_fails(bench: Bench, runs: Sequence[RunId]) -> None:
    bench.connection.execute(REFUSE_SUCCESS)
    with bench.worker():
        rows = [bench.wait_for(run_id) for run_id in runs]
    assert [(row["status"], row["error"]["code"]) for row in rows] == [("failed", "internal")] * 2


def test_an_event_that_cannot_be_published_is_stored_once_and_the_others_go_out(
    bench: Bench, writer: EventWriter, runs: Sequence[RunId], settings: Settings
) -> None:
    nested, other = runs
    for run_id in runs:
        writer.hold(Lease(TENANT, run_id, epoch=0))
    deep: Any = 1
    for _ in range(252):
        deep = [deep]
    output = record(nested, step_events.handled(5, value=MetadataValue.json({"output": deep})))
    before = bench.events(nested)
    with listening(settings, other) as messages:
        writer.append(output, line(other, "told"))
        writer.flush(nested)
        writer.flush(other)
        events = next(messages)["events"]
    assert [event["data"]["message"] for event in events] == ["told"]
    assert bench.events(nested) == [*before, ("HANDLED_OUTPUT", "one")]
    assert stored(bench, other) == ["told"]


def test_a_refusal_is_told_to_who_asks_while_more_is_pending(
    bench: Bench, writer: EventWriter, runs: Sequence[RunId]
) -> None:
    writer.append(refused(runs[0]))
    writer.flush()
    with bench.connection.transaction():
        bench.connection.execute(LOCK_RUN, (runs[0],))
        writer.append(line(runs[0], "later"))
        told = outcome(writer, runs[0])
    assert isinstance(told.result(60), EventRefused)
    assert outcome(writer, runs[0]).result(0) is None
    assert stored(bench, runs[0]) == ["later"]


def test_what_was_appended_under_an_old_lease_is_not_written_under_a_new_one(
    bench: Bench, writer: EventWriter, runs: Sequence[RunId]
) -> None:
    run_id, other = runs
    old, new = Lease(TENANT, run_id, epoch=0), Lease(TENANT, run_id, epoch=1)
    writer.hold(old)
    with connect(bench.settings.database_url) as blocker, blocker.transaction():
        blocker.execute(LOCK_RUN, (other,))
        writer.append(line(other, "keeps the writer busy"))
        blocked(bench.connection)
        writer.append(line(run_id, "too late"))
        too_late = outcome(writer, run_id)
        writer.release(old)
        bench.connection.execute(
            "UPDATE graphwright.runs SET epoch = 1 WHERE run_id = %s", (run_id,)
        )
        writer.hold(new)
        writer.append(line(run_id, "in time"))
        in_time = outcome(writer, run_id)
        writer.release(old)  # which is not the lease that holds
        assert writer.lease(run_id) is new
    assert isinstance(too_late.result(60), LeaseLost)
    assert in_time.result(60) is None
    assert (old.lost, new.lost) == (True, False)
    assert stored(bench, run_id) == ["in time"]


def test_who_names_a_lease_writes_under_no_other(
    bench: Bench, writer: EventWriter, runs: Sequence[RunId]
) -> None:
    lease = Lease(TENANT, runs[0], epoch=0)
    writer.hold(lease)
    log = RunLog(DagsterRun(job_name="job", run_id=runs[0]), writer)
    log.message(NodeId("one"), "info", "held")
    writer.release(lease)
    writer.flush(runs[0])
    with pytest.raises(LeaseLost):
        log.message(NodeId("one"), "info", "from a thread that outlived its lease")
    writer.hold(Lease(TENANT, runs[0], epoch=0))
    with pytest.raises(LeaseLost):
        log.started(NodeId("one"), 1)
    writer.flush(runs[0])
    assert stored(bench, runs[0]) == ["held"]


def test_a_batch_is_bounded_by_its_size(
    bench: Bench, writer: EventWriter, runs: Sequence[RunId]
) -> None:
    mebibyte = 2**20
    sizes = [9, 5, 2, 5, 5]  # a batch each: 9; 5 + 2; 5; 5
    writer.append(*(line(runs[0], "x" * size * mebibyte) for size in sizes))
    writer.flush(runs[0])
    rows = bench.connection.execute(
        "SELECT count(*) AS events FROM event_logs"
        " WHERE run_id = %s AND dagster_event_type IS NULL GROUP BY xmin::text ORDER BY min(id)",
        (runs[0],),
    )
    assert [row["events"] for row in rows] == [1, 2, 1, 1]


def test_a_closed_writer_takes_no_events(settings: Settings) -> None:
    writer = EventWriter(settings.database_url, Publisher(""))
    writer.close()
    with pytest.raises(Unavailable):
        writer.append(line(RunId("r"), "too late"))


def test_the_writer_outlives_a_fault_of_its_own(
    bench: Bench, writer: EventWriter, runs: Sequence[RunId], monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(_committer: Committer, _entries: Sequence[Entry]) -> Refusals:
        raise RuntimeError("a fault")

    with monkeypatch.context() as faulty:
        faulty.setattr(Committer, "commit", commit)
        writer.append(line(runs[0], "lost"))
        with pytest.raises(EventRefused):
            writer.flush(runs[0], timeout=60)
    writer.append(line(runs[0], "stored"))
    writer.flush(runs[0])
    assert stored(bench, runs[0]) == ["stored"]


@pytest.mark.parametrize("reused", [False, True])
def test_a_batch_that_a_crash_of_the_server_took_is_written_again(reused: bool) -> None:
    """Its transaction's id is then in the future, or by now another's, which is committed."""
    with TemporaryDirectory(prefix="gw-") as folder:  # short, for the socket
        server = EmbeddedPostgres(Path(folder) / "state")
        try:
            _crash(server, Path(folder) / "gate", reused=reused)
        finally:
            server.stop()


def _crash(server: EmbeddedPostgres, gate: Path, *, reused: bool) -> None:
    server_url = server.start()
    services.ensure_template(server_url, "crash")
    url = services.with_database(server_url, "crash")
    parts = urlsplit(url)
    real = parse_qs(parts.query)["host"][0]
    gate.symlink_to(real)  # the writer's way to the server, closed while that is down
    query = urlencode({"host": str(gate)}, quote_via=quote)
    writer = EventWriter(urlunsplit(parts._replace(query=query)), Publisher(""))
    run_id = RunId(new_id())
    with closing(connect(url)) as connection, closing(connect(url)) as blocker:
        connection.execute(
            "INSERT INTO runs (run_id, pipeline_name, status, run_body)"
            " VALUES (%s, 'job', 'NOT_STARTED', '{}')",
            (run_id,),
        )
        connection.execute("CHECKPOINT")
        blocker.execute("BEGIN")
        blocker.execute("SELECT FROM runs WHERE run_id = %s FOR UPDATE", (run_id,))
        writer.append(run_record(run_id, "j", DagsterEventType.PIPELINE_START))
        told = outcome(writer, run_id)
        transaction = blocked(connection)
        assert transaction is not None
        gate.unlink()
        _kill(server)
    server.start()
    with connect(url) as connection:
        while reused and _next_transaction(connection) <= int(transaction):
            pass
        gate.symlink_to(real)
        assert told.result(60) is None
        events = "SELECT dagster_event_type AS kind FROM event_logs WHERE run_id = %s"
        assert [row["kind"] for row in connection.execute(events, (run_id,))] == ["PIPELINE_START"]
    writer.close()


def _next_transaction(connection: Connection) -> int:
    row = connection.execute("SELECT pg_current_xact_id()::text AS id").fetchone()
    assert row is not None
    return int(row["id"])


def _kill(server: EmbeddedPostgres) -> None:
    """All of it at once: a server that is killed alone is outlived by its children."""
    assert server.pid is not None
    process = psutil.Process(server.pid)
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it ends when the server has
            each.kill()
