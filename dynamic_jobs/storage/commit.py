"""Brings a batch to its commit, whatever it takes: new connections, one record at a time.

The server is asked about a commit whose answer was lost, so a batch is stored exactly once.
"""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Final

import psycopg

from dynamic_jobs.queueing.admission import admit
from dynamic_jobs.storage.batch import Batch, Entry, write_batch
from dynamic_jobs.storage.lease import EventRefused
from dynamic_jobs.storage.publisher import Publisher
from dynamic_jobs.storage.statements import (
    COUNT_EVENTS,
    NEVER_STAND_STILL,
    PLAN_ANEW,
    PLAN_ONCE,
    TRANSACTION_STATUS,
    WAKE_DISPATCHER,
)
from foundation.database import Connection, connect
from foundation.errors import Unavailable
from foundation.telemetry.metrics import RUNS, WRITER_LAG

_log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0)

_PASSING: Final = ("08", "40", "53", "57P")
"""SQLSTATEs that are not the batch's fault: connections, deadlocks, resources, shutdowns."""

_OUT_OF_MEMORY: Final = "53200"
_PATIENCE: Final = 10
"""Attempts before that is held against the batch after all: it may be what takes the memory."""

_BATCHES_PER_PLAN: Final = 256
"""Planning all statements takes about a millisecond, so per batch it costs little then."""

Refusals = dict[int, Exception]
"""Why the record at an index of a batch is not stored."""


class Committer:
    """The writer's connection. One thread uses it; ``closing`` makes it give up in the end."""

    def __init__(self, database_url: str, publisher: Publisher, closing: threading.Event) -> None:
        self._url = database_url
        self._publisher = publisher
        self._closing = closing
        self._connection: Connection | None = None
        self._batches = 0

    def commit(self, entries: Sequence[Entry]) -> Refusals:
        """Commit and publish a batch, in which a run has one lease at most.

        Waits for a database that is away, until the process stops. Records of a lost lease are left
        out; the lease then says so.
        """
        try:
            self._commit(entries)
        except Unavailable as error:
            _log.error("gave up %d events while stopping: %s", len(entries), error)
            return dict.fromkeys(range(len(entries)), error)
        except Exception as error:
            if len(entries) == 1:
                _log.exception("an event cannot be stored")
                return {0: refusal(entries[0], error)}
            return self._commit_each(entries)
        return {}

    def close(self) -> None:
        self._disconnect()
        self._publisher.close()

    def _commit_each(self, entries: Sequence[Entry]) -> Refusals:
        refusals: Refusals = {}
        for index, entry in enumerate(entries):
            for error in self.commit([entry]).values():
                refusals[index] = error
        return refusals

    def _commit(self, entries: Sequence[Entry]) -> None:
        records = [record for record, _ in entries]
        leases = {record.run_id: lease for record, lease in entries if lease is not None}
        attempt = 0
        cut: Batch | None = None
        while True:
            batch = Batch(records, leases)
            try:
                connection = self._connected()
                if cut is not None and self._went_through(connection, cut):
                    _count(cut)
                    return  # unpublished, so readers find a gap and read PostgreSQL
                write_batch(connection, batch)
                _count(batch)
                self._publisher.publish(batch.published)
                self._admit(connection, batch)
                self._wake_dispatcher(connection, batch)
                return
            except psycopg.Error as error:
                if not self._passes(error, attempt):
                    raise
                self._disconnect()
                cut = batch if batch.transaction is not None else cut
                if self._closing.is_set() and attempt >= len(_RETRY_SECONDS):
                    raise Unavailable(
                        "the database does not take events", hint="is PostgreSQL up?"
                    ) from error
                _log.warning("a batch of events was cut off; trying again: %s", error)
                time.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
                attempt += 1

    def _admit(self, connection: Connection, batch: Batch) -> None:
        """Runs that waited for the end of one of these may start now."""
        if not batch.freed:
            return
        try:
            admit(connection, batch.freed)
        except psycopg.Error as error:  # workers look round for them, a little later
            _log.warning("runs could not be given their places: %s", error)

    def _wake_dispatcher(self, connection: Connection, batch: Batch) -> None:
        """There are notices."""
        if not batch.notices:
            return
        try:
            connection.execute(WAKE_DISPATCHER)
        except psycopg.Error as error:  # it looks round for them, a little later
            _log.warning("the dispatcher could not be told of notices: %s", error)

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = connect(self._url)
            self._connection.execute(NEVER_STAND_STILL)
            self._connection.execute(PLAN_ONCE)
            self._batches = 0
        self._batches += 1
        if self._batches % _BATCHES_PER_PLAN == 0:
            self._connection.execute(PLAN_ANEW)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _passes(self, error: psycopg.Error, attempt: int) -> bool:
        """Whether trying again may help. Else the batch, or one record of it, is at fault."""
        if self._connection is None or self._connection.closed:
            return True
        if error.sqlstate == _OUT_OF_MEMORY:
            return attempt < _PATIENCE
        return error.sqlstate is not None and error.sqlstate.startswith(_PASSING)

    def _went_through(self, connection: Connection, batch: Batch) -> bool:
        """Whether a batch whose commit was cut off is stored after all.

        The transaction's id only says when that is settled: where the whole server crashed, the id
        may be another's by now. What counts is whether the events are there.
        """
        waits = 0
        while _in_progress(connection, batch.transaction):
            if self._closing.is_set() and waits >= len(_RETRY_SECONDS):
                raise Unavailable("the server is not done with a commit that was cut off")
            time.sleep(_RETRY_SECONDS[0])  # the server has not noticed the cut yet
            waits += 1
        columns = [list(column) for column in zip(*batch.ends, strict=True)]
        row = connection.execute(COUNT_EVENTS, columns).fetchone()
        return row is not None and row["stored"] == len(batch.ends)


def refusal(entry: Entry, cause: Exception) -> EventRefused:
    """What those are told who wait for a record that cannot be stored."""
    error = EventRefused(f"an event cannot be stored: {cause}", run_id=entry[0].run_id)
    error.__cause__ = cause
    return error


def _count(batch: Batch) -> None:
    """Of what is committed now: the runs that ended with it, and how long it took to get there."""
    for run in batch.runs.values():
        if run.ended_at is not None:
            RUNS.labels(run.status).inc()
    WRITER_LAG.observe(max(0.0, time.time() - batch.records[0].at.timestamp()))


def _in_progress(connection: Connection, transaction: str | None) -> bool:
    try:
        row = connection.execute(TRANSACTION_STATUS, (transaction,)).fetchone()
    except psycopg.errors.InvalidParameterValue:
        return False  # "in the future": the server crashed before it wrote the id down
    return row is not None and row["status"] == "in progress"
