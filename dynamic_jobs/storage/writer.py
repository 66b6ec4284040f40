"""One writer per process: it takes all pending events and commits them in one transaction.

Adaptive by construction: an event that finds the writer idle is written at once; those that arrive
while it writes make up the next batch. Nothing waits for a timer.

A transaction locks its runs' rows, checks each lease's epoch, draws the event ids, and then writes
events, node outputs and run status together; only after the commit are the events published. A run
whose lease was lost leaves the batch without failing the others (docs/adr/0004-event-writer.md).
"""

import logging
import threading
import time
from collections.abc import Iterable, Sequence

import psycopg

from dynamic_jobs.storage.batch import Batch, write_batch
from dynamic_jobs.storage.lease import Lease, LeaseLost
from dynamic_jobs.storage.publisher import Publisher
from dynamic_jobs.storage.records import Record
from dynamic_jobs.storage.statements import TRANSACTION_STATUS
from foundation.database import Connection, connect
from foundation.errors import Unavailable
from foundation.ids import RunId

_log = logging.getLogger(__name__)

_MAX_BATCH = 1_000
_RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)


class EventWriter:
    """Writes this process's events in the order in which they were appended.

    Threads start on first use, so a parent may fork before that.
    """

    def __init__(self, database_url: str, publisher: Publisher) -> None:
        self._url = database_url
        self._publisher = publisher
        self._leases: dict[RunId, Lease] = {}
        self._pending: list[Record] = []
        self._appended = 0
        self._written = 0
        self._failed: dict[RunId, Exception] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self._closing = False

    def hold(self, lease: Lease) -> None:
        """From now on this process writes the run, under this lease."""
        with self._changed:
            self._leases[lease.run_id] = lease

    def release(self, run_id: RunId) -> None:
        with self._changed:
            self._leases.pop(run_id, None)

    def lease(self, run_id: RunId) -> Lease | None:
        return self._leases.get(run_id)

    def append(self, *records: Record) -> None:
        """Queue records for the next batch. Returns at once; :meth:`flush` waits for the commit.

        Raises :class:`LeaseLost` when another worker has taken the run over.
        """
        with self._changed:
            for record in records:
                lease = self._leases.get(record.run_id)
                if lease is not None and lease.lost:
                    raise LeaseLost("another worker has taken this run over", run_id=record.run_id)
            self._pending.extend(records)
            self._appended += len(records)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="event-writer", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, run_id: RunId | None = None, timeout: float = 60.0) -> None:
        """Wait until all that was appended so far is committed.

        Raises :class:`LeaseLost` for a run taken over by another worker, :class:`Unavailable` when
        the database does not answer within ``timeout`` seconds (the records stay queued), and the
        database's own error when it refused a record of this run.
        """
        with self._changed:
            if threading.current_thread() is self._thread:
                return
            target = self._appended
            if not self._changed.wait_for(lambda: self._written >= target, timeout):
                raise Unavailable("the database does not take events", hint="is PostgreSQL up?")
            if run_id is None:
                return
            lease = self._leases.get(run_id)
            if lease is not None and lease.lost:
                raise LeaseLost("another worker has taken this run over", run_id=run_id)
            failure = self._failed.pop(run_id, None)
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Write what is pending and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        if self._connection is not None:
            self._connection.close()
        self._publisher.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closing)
                if not self._pending:
                    return
                records, self._pending = self._pending[:_MAX_BATCH], self._pending[_MAX_BATCH:]
            self._write(records)
            with self._changed:
                self._written += len(records)
                self._changed.notify_all()

    def _write(self, records: Sequence[Record]) -> None:
        """Commit a batch, whatever it takes: retry a lost connection, isolate a refused record."""
        attempt = 0
        cut: Batch | None = None
        while True:
            batch = Batch(records, self._held(records))
            try:
                connection = self._connected()
                if cut is not None and _went_through(connection, cut):
                    return  # unpublished, so readers find a gap and read PostgreSQL
                write_batch(connection, batch)
                self._publisher.publish(batch.published)
                return
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                self._disconnect()
                cut = batch if batch.transaction is not None else cut
                if self._closing and attempt >= len(_RETRY_SECONDS):
                    _log.error("gave up %d events while stopping: %s", len(records), error)
                    return
                _log.warning("a batch of events was cut off; trying again: %s", error)
                time.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
                attempt += 1
            except Exception as error:
                if len(records) == 1:
                    _log.exception("an event cannot be stored")
                    self._failed[records[0].run_id] = error
                    return
                for record in records:
                    self._write([record])
                return

    def _held(self, records: Iterable[Record]) -> dict[RunId, Lease]:
        with self._changed:
            run_ids = {record.run_id for record in records}
            return {run_id: self._leases[run_id] for run_id in run_ids & self._leases.keys()}

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = connect(self._url)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _went_through(connection: Connection, batch: Batch) -> bool:
    """Whether a batch whose commit was cut off is stored after all."""
    while True:
        row = connection.execute(TRANSACTION_STATUS, (batch.transaction,)).fetchone()
        if row is None or row["status"] != "in progress":
            return row is not None and row["status"] == "committed"
        time.sleep(_RETRY_SECONDS[0])  # the server has not noticed the cut yet
