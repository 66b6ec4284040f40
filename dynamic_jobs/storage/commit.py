"""Brings a batch to its commit, whatever it takes: new connections, one record at a time.

The server is asked about a commit whose answer was lost, so a batch is stored exactly once.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import psycopg

from dynamic_jobs.storage.batch import Batch, write_batch
from dynamic_jobs.storage.lease import Lease
from dynamic_jobs.storage.publisher import Publisher
from dynamic_jobs.storage.records import Record
from dynamic_jobs.storage.statements import PLAN_ANEW, PLAN_ONCE, TRANSACTION_STATUS
from foundation.database import Connection, connect
from foundation.errors import Unavailable
from foundation.ids import RunId

_log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0)

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

    def commit(
        self,
        records: Sequence[Record],
        held: Callable[[Iterable[Record]], Mapping[RunId, Lease]],
    ) -> Refusals:
        """Commit and publish a batch. ``held`` gives the leases on the runs of some records.

        Waits for a database that is away, until the process stops. Records of a lost lease are left
        out; the lease then says so.
        """
        try:
            self._commit(records, held)
        except Unavailable as error:
            _log.error("gave up %d events while stopping: %s", len(records), error)
            return dict.fromkeys(range(len(records)), error)
        except Exception as error:
            if len(records) == 1:
                _log.exception("an event cannot be stored")
                return {0: error}
            return self._commit_each(records, held)
        return {}

    def close(self) -> None:
        self._disconnect()
        self._publisher.close()

    def _commit_each(
        self,
        records: Sequence[Record],
        held: Callable[[Iterable[Record]], Mapping[RunId, Lease]],
    ) -> Refusals:
        refusals: Refusals = {}
        for index, record in enumerate(records):
            for error in self.commit([record], held).values():
                refusals[index] = error
        return refusals

    def _commit(
        self,
        records: Sequence[Record],
        held: Callable[[Iterable[Record]], Mapping[RunId, Lease]],
    ) -> None:
        attempt = 0
        cut: Batch | None = None
        while True:
            batch = Batch(records, dict(held(records)))
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
                if self._closing.is_set() and attempt >= len(_RETRY_SECONDS):
                    raise Unavailable(
                        "the database does not take events", hint="is PostgreSQL up?"
                    ) from error
                _log.warning("a batch of events was cut off; trying again: %s", error)
                time.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
                attempt += 1

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = connect(self._url)
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


def _went_through(connection: Connection, batch: Batch) -> bool:
    """Whether a batch whose commit was cut off is stored after all."""
    while True:
        row = connection.execute(TRANSACTION_STATUS, (batch.transaction,)).fetchone()
        if row is None or row["status"] != "in progress":
            return row is not None and row["status"] == "committed"
        time.sleep(_RETRY_SECONDS[0])  # the server has not noticed the cut yet
