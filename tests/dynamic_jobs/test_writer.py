"""The event writer: order, batches, status, the fence, faults."""

import json
import socket
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, LiteralString, cast
from urllib.parse import parse_qs, quote, urlencode, urlsplit, urlunsplit

import pytest
import redis
from dagster import DagsterEvent, DagsterEventType, EventLogEntry
from dagster._core.events import EngineEventData

from dynamic_jobs.controlling.records import run_record
from dynamic_jobs.reading.events import channel_of
from dynamic_jobs.storage import EventRefused, EventWriter, Lease, LeaseLost
from dynamic_jobs.storage.publisher import Publisher
from dynamic_jobs.storage.records import Record
from foundation.errors import Unavailable
from foundation.ids import NodeId, RunId
from foundation.settings import Settings
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value

LOCK_RUN: Final[LiteralString] = "SELECT FROM graphwright.runs WHERE run_id = %s FOR UPDATE"


@pytest.fixture
def writer(settings: Settings) -> Generator[EventWriter]:
    opened = EventWriter(settings.database_url, Publisher(settings.redis_url))
    yield opened
    opened.close()


@pytest.fixture
def run_id(bench: Bench) -> RunId:
    return bench.start(bench.publish(graph({"one": value(1)})))


def line(run_id: RunId, text: str) -> Record:
    return Record.of(
        EventLogEntry(
            error_info=None,
            level="INFO",
            user_message=text,
            run_id=run_id,
            timestamp=time.time(),
            step_key="one",
            job_name="job",
        )
    )


def stored(bench: Bench, run_id: RunId) -> list[str]:
    rows = bench.connection.execute(
        "SELECT event::json->>'user_message' AS text FROM event_logs"
        " WHERE run_id = %s AND dagster_event_type IS NULL ORDER BY id",
        (run_id,),
    )
    return [row["text"] for row in rows]


@contextmanager
def listening(settings: Settings, run_id: RunId) -> Generator[Iterator[dict[str, Any]]]:
    """What is published of the run from now on."""
    with redis.from_url(settings.redis_url) as client, client.pubsub() as subscription:
        subscription.subscribe(channel_of(run_id))
        heard: Iterator[dict[str, Any]] = cast("Any", subscription.listen())
        assert next(heard)["type"] == "subscribe"
        yield (json.loads(message["data"]) for message in heard)


def test_events_are_stored_in_the_order_of_appending(
    bench: Bench, writer: EventWriter, run_id: RunId
) -> None:
    writer.hold(Lease(TENANT, run_id, epoch=0))
    for number in range(2_500):
        writer.append(line(run_id, str(number)))
    writer.flush(run_id)
    assert stored(bench, run_id) == [str(number) for number in range(2_500)]


def test_batches_go_on_when_their_plans_are_made_anew(
    bench: Bench, writer: EventWriter, run_id: RunId
) -> None:
    writer.hold(Lease(TENANT, run_id, epoch=0))
    for number in range(300):
        writer.append(line(run_id, str(number)))
        writer.flush(run_id)
    assert stored(bench, run_id) == [str(number) for number in range(300)]


def test_a_batch_is_published_after_its_commit_with_the_event_before_it(
    bench: Bench, writer: EventWriter, run_id: RunId, settings: Settings
) -> None:
    queued = bench.row(run_id)["last_event_id"]
    assert queued > 0
    writer.hold(Lease(TENANT, run_id, epoch=0))
    with listening(settings, run_id) as messages:
        writer.append(line(run_id, "first"))
        writer.flush(run_id)
        published = next(messages)
    assert published["prev"] == str(queued)
    assert [event["data"]["message"] for event in published["events"]] == ["first"]
    assert bench.row(run_id)["last_event_id"] == int(published["events"][0]["id"])


def test_a_lost_lease_writes_nothing_and_does_not_hurt_the_others(
    bench: Bench, writer: EventWriter, run_id: RunId
) -> None:
    other = bench.start(bench.publish(graph({"one": value(1)})))
    writer.hold(Lease(TENANT, run_id, epoch=0))
    writer.hold(Lease(TENANT, other, epoch=0))
    bench.connection.execute(
        "UPDATE graphwright.runs SET epoch = epoch + 1 WHERE run_id = %s", (run_id,)
    )
    writer.append(line(run_id, "too late"), line(other, "fine"))
    with pytest.raises(LeaseLost):
        writer.flush(run_id)
    writer.flush(other)
    assert stored(bench, run_id) == []
    assert stored(bench, other) == ["fine"]
    with pytest.raises(LeaseLost):
        writer.append(line(run_id, "still too late"))


def test_status_outputs_and_success_commit_together(
    bench: Bench, writer: EventWriter, run_id: RunId
) -> None:
    lease = Lease(TENANT, run_id, epoch=0)
    writer.hold(lease)
    writer.append(run_record(run_id, "job", DagsterEventType.PIPELINE_START))
    writer.flush(run_id)
    assert bench.row(run_id)["status"] == "running"
    lease.outputs = '{"answer":42}'
    success = run_record(run_id, "job", DagsterEventType.PIPELINE_SUCCESS)
    last = Record(run_id, success.event, None, success.at, "one", output=(NodeId("one"), "42"))
    writer.append(last, success)
    writer.flush(run_id)
    row = bench.row(run_id)
    assert (row["status"], row["outputs"]) == ("succeeded", {"answer": 42})
    outputs = "SELECT value FROM graphwright.node_outputs WHERE run_id = %s AND node = 'one'"
    found = bench.connection.execute(outputs, (run_id,)).fetchone()
    assert found == {"value": "42"}
    dagster = bench.connection.execute("SELECT status FROM runs WHERE run_id = %s", (run_id,))
    assert dagster.fetchone() == {"status": "SUCCESS"}


def test_an_ended_run_stays_ended(bench: Bench, writer: EventWriter, run_id: RunId) -> None:
    writer.append(run_record(run_id, "job", DagsterEventType.PIPELINE_SUCCESS))
    writer.append(run_record(run_id, "job", DagsterEventType.PIPELINE_CANCELING))
    writer.flush(run_id)
    assert bench.row(run_id)["status"] == "succeeded"


def test_a_cut_connection_loses_nothing(bench: Bench, writer: EventWriter, run_id: RunId) -> None:
    writer.hold(Lease(TENANT, run_id, epoch=0))
    writer.append(line(run_id, "before"))
    writer.flush(run_id)
    bench.connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    writer.append(line(run_id, "after"))
    writer.flush(run_id)
    assert stored(bench, run_id) == ["before", "after"]


def refused(run_id: RunId) -> Record:
    """A record that PostgreSQL does not take: text holds no NUL."""
    return replace(line(run_id, ""), event="\0")


def outcome(writer: EventWriter, run_id: RunId | None) -> "Future[Exception | None]":
    """What :meth:`EventWriter.when_committed` hands over."""
    told: Future[Exception | None] = Future()
    writer.when_committed(run_id, told.set_result)
    return told


def test_a_callback_comes_after_the_commit_from_the_writers_thread_without_its_lock(
    bench: Bench, writer: EventWriter, run_id: RunId
) -> None:
    seen: Future[tuple[Exception | None, list[str], str]] = Future()

    def committed(failure: Exception | None) -> None:
        writer.append(line(run_id, "from the callback"))
        seen.set_result((failure, stored(bench, run_id), threading.current_thread().name))

    writer.hold(Lease(TENANT, run_id, epoch=0))
    with bench.connection.transaction():  # holds the batch until the callback is registered
        bench.connection.execute(LOCK_RUN, (run_id,))
        writer.append(line(run_id, "first"))
        writer.when_committed(run_id, committed)
        assert writer.pending(run_id)
        assert not seen.done()
    assert seen.result(60) == (None, ["first"], "event-writer")
    writer.flush(run_id)
    assert stored(bench, run_id) == ["first", "from the callback"]
    assert not writer.pending(run_id)


def test_with_nothing_pending_a_callback_comes_at_once(writer: EventWriter, run_id: RunId) -> None:
    assert outcome(writer, run_id).result(0) is None
    assert outcome(writer, None).result(0) is None


def test_a_run_does_not_wait_for_the_events_of_another(
    bench: Bench, writer: EventWriter, run_id: RunId
) -> None:
    other = bench.start(bench.publish(graph({"one": value(1)})))
    with bench.connection.transaction():
        bench.connection.execute(LOCK_RUN, (run_id,))
        writer.append(line(run_id, "held up"))
        assert outcome(writer, other).result(0) is None
        whole = outcome(writer, None)
        assert not whole.done()
    assert whole.result(60) is None


def test_a_callback_of_a_lost_run_is_told_so(
    bench: Bench, writer: EventWriter, run_id: RunId
) -> None:
    lease = Lease(TENANT, run_id, epoch=0)
    writer.hold(lease)
    with bench.connection.transaction():
        bench.connection.execute(
            "UPDATE graphwright.runs SET epoch = epoch + 1 WHERE run_id = %s", (run_id,)
        )
        writer.append(line(run_id, "too late"))
        told = outcome(writer, run_id)
        writer.release(lease)
    assert isinstance(told.result(60), LeaseLost)


def test_a_refused_record_is_told_to_all_who_wait_for_it_and_costs_only_itself(
    bench: Bench, writer: EventWriter, run_id: RunId
) -> None:
    other = bench.start(bench.publish(graph({"one": value(1)})))
    with bench.connection.transaction():
        bench.connection.execute(LOCK_RUN, (run_id,))
        writer.append(line(run_id, "before"))
        before = outcome(writer, run_id)
        writer.append(refused(run_id))
        after, after_too = outcome(writer, run_id), outcome(writer, run_id)
        writer.append(line(other, "fine"))
        unconcerned = outcome(writer, other)
    assert before.result(60) is None
    assert isinstance(after.result(60), EventRefused)
    assert isinstance(after_too.result(60), EventRefused)
    assert unconcerned.result(60) is None
    assert outcome(writer, run_id).result(0) is None  # it was told
    assert (stored(bench, run_id), stored(bench, other)) == (["before"], ["fine"])


def test_a_refused_record_is_told_to_who_asks_later(writer: EventWriter, run_id: RunId) -> None:
    writer.append(refused(run_id))
    writer.flush()
    with pytest.raises(EventRefused):
        writer.flush(run_id)
    writer.flush(run_id)


def test_without_redis_events_are_stored_all_the_same(
    bench: Bench, settings: Settings, run_id: RunId
) -> None:
    writer = EventWriter(settings.database_url, Publisher("redis://127.0.0.1:1/0"))
    writer.hold(Lease(TENANT, run_id, epoch=0))
    writer.append(line(run_id, "stored"))
    writer.flush(run_id)
    writer.close()
    assert stored(bench, run_id) == ["stored"]


def test_without_a_database_a_flush_says_so_and_keeps_the_events() -> None:
    writer = EventWriter("postgresql://127.0.0.1:1/none?connect_timeout=1", Publisher(""))
    writer.append(line(RunId("r"), "kept"))
    with pytest.raises(Unavailable):
        writer.flush(timeout=0.3)
    told = outcome(writer, RunId("r"))
    assert not told.done()
    writer.close()
    assert isinstance(told.result(0), Unavailable)


def test_a_run_that_is_none_of_ours_is_stored_as_dagster_would(
    bench: Bench, writer: EventWriter
) -> None:
    event = DagsterEvent("ENGINE_EVENT", "foreign", event_specific_data=EngineEventData())
    entry = EventLogEntry(
        error_info=None, level="INFO", user_message="", run_id="foreign-run",
        timestamp=time.time(), job_name="foreign", dagster_event=event,
    )  # fmt: skip
    writer.append(Record.of(entry))
    writer.flush(RunId("foreign-run"))
    assert bench.events(RunId("foreign-run")) == [("ENGINE_EVENT", None)]


class Cutting:
    """PostgreSQL behind a socket of our own, which cuts one connection around a COMMIT.

    The server has heard the COMMIT (``committed``) or not; None: nor does it hear of the cut.
    """

    def __init__(self, database_url: str, folder: Path, *, committed: bool | None) -> None:
        parts = urlsplit(database_url)
        query = parse_qs(parts.query)
        self._real = f"{query['host'][0]}/.s.PGSQL.{query.get('port', ['5432'])[0]}"
        self._committed = committed
        self._closed = threading.Event()
        self.cuts = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        changed = urlencode({"host": str(folder)}, quote_via=quote)
        self.url = urlunsplit(parts._replace(query=changed))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._real)
                threading.Thread(target=self._to_server, args=(client, server), daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        with suppress(OSError), client, server:
            while message := client.recv(65_536):
                if b"COMMIT" in message and not self.cuts:
                    self.cuts += 1
                    client.shutdown(socket.SHUT_RDWR)
                    if self._committed:  # the server hears it, and its answer is lost
                        server.sendall(message)
                    elif self._committed is None:
                        self._closed.wait()
                    server.shutdown(socket.SHUT_WR)
                    back.join()
                    return
                server.sendall(message)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while message := source.recv(65_536):
            with suppress(OSError):
                sink.sendall(message)


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_whose_answer_is_lost_is_stored_once(
    bench: Bench, run_id: RunId, committed: bool
) -> None:
    with TemporaryDirectory(prefix="gw-") as folder:  # short, for the socket
        proxy = Cutting(bench.settings.database_url, Path(folder), committed=committed)
        writer = EventWriter(proxy.url, Publisher(""))
        writer.hold(Lease(TENANT, run_id, epoch=0))
        writer.append(line(run_id, "once"))
        writer.flush(run_id)
        writer.close()
        proxy.close()
    assert proxy.cuts == 1
    assert stored(bench, run_id) == ["once"]


def test_a_writer_that_closes_gives_up_a_commit_that_stays_in_doubt(
    bench: Bench, run_id: RunId
) -> None:
    with TemporaryDirectory(prefix="gw-") as folder:
        proxy = Cutting(bench.settings.database_url, Path(folder), committed=None)
        writer = EventWriter(proxy.url, Publisher(""))
        writer.append(line(run_id, "in doubt"))
        told = outcome(writer, run_id)
        closing = threading.Thread(target=writer.close, daemon=True)
        closing.start()
        assert isinstance(told.result(60), Unavailable)
        closing.join()
        proxy.close()
    assert proxy.cuts == 1
