"""A worker for one run, which ends with it."""

import asyncio
import logging
import os
import signal
import threading
from contextlib import ExitStack
from typing import ClassVar, Final

from dynamic_jobs.compute_logs import captured
from dynamic_jobs.executing.execution import RunExecution
from dynamic_jobs.placing.statements import BEING_PLACED
from dynamic_jobs.queueing.claiming import Claim, claim_solo
from dynamic_jobs.workers.instance import WorkerInstance
from dynamic_jobs.workers.solo_runs import SoloRuns
from dynamic_jobs.workers.worker import Worker
from foundation.database import AsyncConnection, Pool
from foundation.ids import RunId
from foundation.settings import Limits, Settings
from foundation.telemetry.logs import configure_logs

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 0.1
"""Between looks at whether the run has been handed over: it takes as long as its platform takes to
answer who asked for this process."""


class SoloWorker(Worker):
    """Claims its run, if it is still there to claim, and nothing else."""

    places_runs = False
    captures: ClassVar[bool] = True
    """Whether what this process prints is all about its run, so that it is kept with it."""

    def __init__(self, settings: Settings, limits: Limits, run_id: RunId) -> None:
        super().__init__(settings, limits, pool=os.getppid())
        self._run_id = run_id
        self._leaves = False
        self._instance: WorkerInstance | None = None
        self._capture = ExitStack()

    async def claim(self, connection: AsyncConnection, limit: int) -> list[Claim]:
        while True:
            # Asked before, for the run may be handed over between the two.
            may_come = await self._is_being_placed(connection)
            claims = await claim_solo(connection, self.id, self._run_id)
            if claims or not may_come or self._stops:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        if not claims:
            _log.warning("run %s is not there to be executed by this process", self._run_id)
        if self._leaves:  # nothing is begun, and the next process need not wait for a lease to end
            self.hurry()
            return claims
        for claimed in claims:
            if self.captures and claimed.goes_elsewhere:  # and not a warm one that had strikes
                await asyncio.to_thread(self._begin_capture, claimed)
        self.retire()
        return claims

    async def _serve(
        self,
        execution: RunExecution,
        instance: WorkerInstance,
        connections: Pool,
        solo: SoloRuns,
    ) -> None:
        self._instance = instance
        try:
            await super()._serve(execution, instance, connections, solo)
        finally:
            await asyncio.to_thread(self._end_capture)

    def _begin_capture(self, claimed: Claim) -> None:
        """It starts processes, and blocks. Never raises: the run is executed all the same."""
        assert self._instance is not None
        try:
            self._capture.enter_context(captured(self._instance, claimed.dagster_run()))
        except Exception:
            _log.exception("what run %s prints is not kept", self._run_id)

    def _end_capture(self) -> None:
        """The run has ended or is handed back: complete what was captured, in the bucket too."""
        try:
            self._capture.close()
        except Exception:
            _log.exception("what run %s printed may not be kept", self._run_id)

    async def _is_being_placed(self, connection: AsyncConnection) -> bool:
        found = await connection.execute(BEING_PLACED, (self._run_id,))
        return await found.fetchone() is not None

    def hand_back(self) -> None:
        """Hand the run back if it has not ended when the time for draining is over; at once when
        called again. Any thread, and any signal handler, may call it."""
        if self._leaves:
            self.hurry()
            return
        self._leaves = True
        patience = threading.Timer(self._settings.drain_seconds, self.hurry)
        patience.daemon = True
        patience.start()


def serve_one(settings: Settings, limits: Limits, run_id: RunId) -> None:
    """Execute this run alone in this process, and end it. SIGTERM hands the run back."""
    configure_logs(settings.log_format)
    worker = SoloWorker(settings, limits, run_id)
    signal.signal(signal.SIGTERM, lambda _number, _frame: worker.hand_back())
    worker.run()
    logging.shutdown()
    os._exit(0)  # Python would wait for a node's thread that does not end
