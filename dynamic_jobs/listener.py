"""Listens for PostgreSQL's notifications: there is work, or a run is to be cancelled."""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import psycopg
from psycopg.sql import SQL, Identifier

from dynamic_jobs.active import Interrupt
from dynamic_jobs.control import CANCEL_CHANNEL
from dynamic_jobs.new_run import WAKE_CHANNEL
from foundation.database import connect
from foundation.ids import RunId

_log = logging.getLogger(__name__)

_TICK_SECONDS = 0.5


class Listener:
    """A thread with a connection of its own. A lost notification costs a poll, never a run."""

    def __init__(
        self,
        database_url: str,
        wake: Callable[[], None],
        cancel: Callable[[RunId, Interrupt], None],
    ) -> None:
        self._url = database_url
        self._wake = wake
        self._cancel = cancel
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._listen()
            except psycopg.Error as error:
                _log.warning("not listening, polling instead: %s", error)
                self._closed.wait(1.0)

    def _listen(self) -> None:
        with connect(self._url) as connection:
            for channel in (WAKE_CHANNEL, CANCEL_CHANNEL):
                connection.execute(SQL("LISTEN {}").format(Identifier(channel)))
            self._wake()  # whatever came while nobody listened
            while not self._closed.is_set():
                for notification in connection.notifies(timeout=_TICK_SECONDS, stop_after=1):
                    if notification.channel == CANCEL_CHANNEL:
                        self._cancel(RunId(notification.payload), "cancel")
                    else:
                        self._wake()
