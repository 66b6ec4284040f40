"""One writer per process: it takes all pending events and commits them in one transaction.

Adaptive by construction: an event that finds the writer idle is written at once; those that arrive
while it writes make up the next batch. Nothing waits for a timer.

A transaction locks its runs' rows, checks each lease's epoch, draws the event ids, and then writes
events, node outputs and run status together; only after the commit are the events published. A run
whose lease was lost leaves the batch without failing the others (docs/adr/0004-event-writer.md).
"""

import heapq
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from dynamic_jobs.storage.batch import Entry
from dynamic_jobs.storage.commit import Committer, Refusals, refusal
from dynamic_jobs.storage.lease import Lease, LeaseLost
from dynamic_jobs.storage.publisher import Publisher
from dynamic_jobs.storage.records import Record
from foundation.errors import Unavailable
from foundation.ids import RunId

_log = logging.getLogger(__name__)

_MAX_BATCH: Final = 1_000
_MAX_BATCH_SIZE: Final = 8 * 2**20
"""In characters of events and outputs; a record that is larger makes a batch of its own."""

Committed: TypeAlias = Callable[[Exception | None], None]
"""Told that all is committed, or why not."""


@dataclass(order=True, slots=True)
class _Waiter:
    """Who wants to know when everything up to the record number ``target`` is committed."""

    target: int
    callback: Committed = field(compare=False)
    run_id: RunId | None = field(compare=False, default=None)
    lease: Lease | None = field(compare=False, default=None)
    failure: Exception | None = field(compare=False, default=None)

    def tell(self) -> None:
        if self.lease is not None and self.lease.lost:
            self.failure = _lost(self.lease.run_id)
        self.callback(self.failure)


class EventWriter:
    """Writes this process's events in the order in which they were appended.

    Threads start on first use, so a parent may fork before that.
    """

    def __init__(self, database_url: str, publisher: Publisher) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)  # the writer's thread alone waits for it
        self._closing = threading.Event()
        self._committer = Committer(database_url, publisher, self._closing)
        self._thread: threading.Thread | None = None
        self._leases: dict[RunId, Lease] = {}
        self._pending: deque[Entry] = deque()
        self._last: dict[RunId, tuple[int, Lease | None]] = {}
        """Of each run that has records not committed yet, the newest one's number and lease."""
        self._appended = 0
        self._written = 0
        self._waiters: list[_Waiter] = []  # a heap
        self._failed: dict[RunId, Exception] = {}

    def hold(self, lease: Lease) -> None:
        """From now on this process writes the run, under this lease."""
        with self._lock:
            self._leases[lease.run_id] = lease
            self._failed.pop(lease.run_id, None)  # it was another's who did not ask

    def release(self, lease: Lease) -> None:
        """Nothing more is written under this lease, save what was appended: that is checked still.

        Where the process holds the run under another lease by now, that one stays.
        """
        with self._lock:
            if self._leases.get(lease.run_id) is lease:
                del self._leases[lease.run_id]
                self._failed.pop(lease.run_id, None)

    def lease(self, run_id: RunId) -> Lease | None:
        return self._leases.get(run_id)

    def append(self, *records: Record, lease: Lease | None = None) -> None:
        """Queue records for the next batch. Returns at once; :meth:`flush` waits for the commit.

        They are written under the lease that the process holds on their run, if it holds one. Who
        names the ``lease`` it works under is told when that is not the one any more.

        Raises :class:`LeaseLost` when another worker has taken the run over, or the lease was
        released; :class:`Unavailable` when the writer is closed.
        """
        with self._lock:
            if self._closing.is_set():
                raise Unavailable("the process is stopping and takes no more events")
            entries = [(record, self._leases.get(record.run_id)) for record in records]
            for record, held in entries:
                if (held is not None and held.lost) or (lease is not None and held is not lease):
                    raise _lost(record.run_id)
            for record, held in entries:
                self._appended += 1
                self._last[record.run_id] = self._appended, held
            self._pending.extend(entries)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="event-writer", daemon=True)
                self._thread.start()
            self._wake.notify()  # nothing to do while it writes: then it does not wait

    def pending(self, run_id: RunId) -> bool:
        """Whether something of this run was appended and is not committed yet."""
        return run_id in self._last

    def when_committed(self, run_id: RunId | None, callback: Committed) -> None:
        """Call back once all that was appended so far to a run, or to all, is committed.

        With nothing pending it is called at once, by the caller's thread; else by the writer's
        thread, after the events were published and with no lock held, so it must not block. It
        gets None, or :class:`LeaseLost` for a run taken over by another worker, or
        :class:`EventRefused` when a record of this run cannot be stored, or :class:`Unavailable`
        when the process stops without a database.
        """
        with self._lock:
            waiter = _Waiter(self._newest(run_id), callback, run_id)
            if run_id is not None:
                _, waiter.lease = self._last.get(run_id) or (0, self._leases.get(run_id))
                waiter.failure = self._failed.pop(run_id, None)
            if self._lines_up(waiter):
                return
        waiter.tell()

    def flush(self, run_id: RunId | None = None, timeout: float = 60.0) -> None:
        """Wait until all that was appended so far to a run, or to all, is committed.

        Raises what :meth:`when_committed` hands over, and :class:`Unavailable` when the database
        does not answer within ``timeout`` seconds (the records stay queued).
        """
        if threading.current_thread() is self._thread:
            return
        done = threading.Event()
        failures: list[Exception] = []

        def committed(failure: Exception | None) -> None:
            if failure is not None:
                failures.append(failure)
            done.set()

        self.when_committed(run_id, committed)
        self._await(done, committed, timeout)
        if failures:
            raise failures[0]

    def catch_up(self, run_id: RunId | None = None, timeout: float = 60.0) -> None:
        """Wait like :meth:`flush`, for a reader: what became of the records it does not ask."""
        if threading.current_thread() is self._thread:
            return
        done = threading.Event()

        def committed(_: Exception | None) -> None:
            done.set()

        with self._lock:
            if not self._lines_up(_Waiter(self._newest(run_id), committed)):
                return
        self._await(done, committed, timeout)

    def close(self) -> None:
        """Write what is pending and stop."""
        with self._lock:
            self._closing.set()
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
        self._committer.close()

    def _newest(self, run_id: RunId | None) -> int:
        """The number of the last record to wait for."""
        return self._appended if run_id is None else self._last.get(run_id, (0, None))[0]

    def _lines_up(self, waiter: _Waiter) -> bool:
        """Put it in line, unless there is nothing that it has to wait for."""
        if waiter.target <= self._written:
            return False
        heapq.heappush(self._waiters, waiter)
        return True

    def _await(self, done: threading.Event, callback: Committed, timeout: float) -> None:
        if done.wait(timeout):
            return
        with self._lock:
            self._waiters = [waiter for waiter in self._waiters if waiter.callback is not callback]
            heapq.heapify(self._waiters)
        raise Unavailable("the database does not take events", hint="is PostgreSQL up?")

    def _run(self) -> None:
        while True:
            with self._lock:
                self._wake.wait_for(lambda: self._pending or self._closing.is_set())
                if not self._pending:
                    return
                entries = self._take()
            try:
                refusals = self._committer.commit(entries)
            except Exception as error:  # without its thread the process would write no more
                _log.exception("a batch of events could not be committed")
                refusals = Refusals((i, refusal(e, error)) for i, e in enumerate(entries))
            for waiter in self._settle(entries, refusals):
                try:
                    waiter.tell()
                except Exception:
                    _log.exception("a callback on a commit failed")

    def _take(self) -> list[Entry]:
        """The next batch: of bounded size, and a run in it has one lease at most."""
        entries: list[Entry] = []
        leases: dict[RunId, Lease | None] = {}
        size = 0
        while self._pending and len(entries) < _MAX_BATCH:
            record, lease = self._pending[0]
            size += record.size
            if entries and size > _MAX_BATCH_SIZE:
                break
            if leases.setdefault(record.run_id, lease) is not lease:
                break
            entries.append(self._pending.popleft())
        return entries

    def _settle(self, entries: Sequence[Entry], refusals: Refusals) -> list[_Waiter]:
        """Count a batch as written, and take out of line who waited for no more than it."""
        with self._lock:
            for index, error in refusals.items():
                self._refuse(entries[index], self._written + index + 1, error)
            self._written += len(entries)
            for run_id in {record.run_id for record, _ in entries}:
                if self._newest(run_id) <= self._written:
                    self._last.pop(run_id, None)
            due: list[_Waiter] = []
            while self._waiters and self._waiters[0].target <= self._written:
                due.append(heapq.heappop(self._waiters))
            return due

    def _refuse(self, entry: Entry, number: int, error: Exception) -> None:
        """A refusal is told to all who wait for that record, else to the next who asks."""
        run_id, lease = entry[0].run_id, entry[1]
        told = [w for w in self._waiters if w.run_id == run_id and w.target >= number]
        for waiter in told:
            waiter.failure = waiter.failure or error
        if not told and self._leases.get(run_id) is lease:  # else whom it concerns has gone
            self._failed[run_id] = error


def _lost(run_id: RunId) -> LeaseLost:
    return LeaseLost("another worker has taken this run over", run_id=run_id)
