"""Processes for runs that are executed alone: because their graph says so, or because their workers
were lost too often."""

import logging
import threading

from dynamic_jobs.workers.prefork_child import ChildLink
from foundation.ids import RunId

_log = logging.getLogger(__name__)


class SoloRuns:
    """The solo processes that one worker has had started; of these there are ``most`` at once.

    They are workers of their own, with a lease of their own, and live on when this worker ends. Of
    runs that had workers lost there is one at a time, for it may take all there is.
    """

    def __init__(self, link: ChildLink | None, most: int) -> None:
        """Without a ``link`` there is never room."""
        self._link = link
        self._most = most
        self._runs: dict[RunId, bool] = {}
        """Whether workers were lost with it."""
        self._lock = threading.Lock()

    @property
    def has_room(self) -> bool:
        """Whether another process may be started."""
        with self._lock:
            return self._has_room()

    @property
    def has_struck(self) -> bool:
        """Whether a run that had workers lost is being executed."""
        return any(self._runs.values())

    def reserve(self, run_id: RunId, *, struck: bool) -> bool:
        """Keep room for this run's process, until it has ended, or :meth:`release`.

        Whether there is room; ``struck`` says that workers were lost with the run.
        """
        with self._lock:
            if not self._has_room() or (struck and self.has_struck):
                return False
            self._runs[run_id] = struck
            return True

    def release(self, run_id: RunId) -> None:
        """The room that was kept is not needed."""
        with self._lock:
            self._runs.pop(run_id, None)

    def start(self, run_id: RunId, *, struck: bool) -> None:
        """Have a process started that executes this run and then ends.

        After :meth:`stop` too, as the run was taken for it before. Where the whole pool stops, that
        process hands the run back.
        """
        with self._lock:
            assert self._link is not None, "there was never room"
            level = logging.WARNING if struck else logging.INFO
            _log.log(level, "run %s gets a process of its own", run_id)
            self._runs[run_id] = struck
            self._link.start_aside(run_id.encode())

    def stop(self) -> None:
        """There is no more room: what is handed back is not for this worker to start again."""
        with self._lock:
            self._most = 0

    def _has_room(self) -> bool:
        if self._link is None:
            return False
        for run_id in self._link.ended_aside():
            self._runs.pop(RunId(run_id.decode()), None)
        return len(self._runs) < self._most
