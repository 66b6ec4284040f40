"""Log lines of the process, without the secrets that nodes are reading, whoever writes them."""

import logging
import threading
from collections.abc import Iterable
from typing import Final
from weakref import WeakSet

from dynamic_jobs.executing.redaction import Redactor

_TRACES: Final = logging.Formatter()


class RedactedLogs(logging.Filter):
    """A filter on the handlers of the root logger: a library may log what a node gives it.

    It goes by the redactors that are alive: those of attempts that are under way, and of nodes that
    were abandoned and still go on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._redactors = WeakSet[Redactor]()
        self._lock = threading.Lock()

    def watch(self, redactor: Redactor) -> None:
        """Strike out the values of this redactor too, for as long as it lives."""
        with self._lock:
            self._redactors.add(redactor)
        for handler in _handlers():
            handler.addFilter(self)  # once, however often it is told

    def close(self) -> None:
        for handler in _handlers():
            handler.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        with self._lock:
            redactors = list(self._redactors)
        if redactors:
            _redact(record, redactors)
        return True


def _handlers() -> list[logging.Handler]:
    last = logging.lastResort  # where there are no others
    return [*logging.getLogger().handlers, *([last] if last else [])]


def _redact(record: logging.LogRecord, redactors: Iterable[Redactor]) -> None:
    message, trace = _message(record), record.exc_text or ""
    if record.exc_info:
        trace = trace or _TRACES.formatException(record.exc_info)
    for redactor in redactors:
        message, trace = redactor.text(message), redactor.text(trace)
    record.msg, record.args = message, None
    record.exc_info, record.exc_text = None, trace or None


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # its arguments do not fit
        return f"{record.msg} {record.args}"
