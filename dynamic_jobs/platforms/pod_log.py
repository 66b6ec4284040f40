"""The log of a pod, as it is written.

A long log is read over several connections: they end when the API server restarts, or a proxy has
had enough. Each line comes with its time, so what was read is not told again.
"""

import time
from datetime import UTC, datetime
from typing import Any, Final

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from dynamic_jobs.platforms.base import Ending
from dynamic_jobs.platforms.lines import Lines
from dynamic_jobs.platforms.patience import Patience
from dynamic_jobs.platforms.pods import passes, read_pod
from dynamic_jobs.platforms.reports import Reports

_TIMEOUTS: Final = (5, 120)
"""Seconds to connect, and without a line: then there is another connection."""
_PAUSE_SECONDS: Final = 1.0
"""After a connection that brought nothing new."""
_AGAIN_SECONDS: Final = 300
"""What a new connection reads again: the cluster's clock may be another."""
_NOT_THERE: Final = (400, 404)
"""It is just starting, or gone."""


def follow(api: Any, namespace: str, name: str, reports: Reports, ending: Ending) -> Any | None:
    """Feed the log of the pod's container until the pod has ended; then the pod, unless it is gone.

    Raises ApiException and HTTPError.
    """
    log, patience = _Log(reports), Patience(ending)
    while True:
        before = log.last
        try:
            _read(api, namespace, name, log, follow=True)
        except (ApiException, HTTPError) as error:
            if not passes(error):
                raise
        pod = _pod(api, namespace, name, patience)
        if pod is None or pod.status.phase not in ("Pending", "Running"):
            break
        if log.last == before:
            time.sleep(_PAUSE_SECONDS)
    _read_rest(api, namespace, name, log, patience)
    return pod


class _Log:
    """Takes each line once, over however many connections it comes."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._known = b""
        self._again = self._same = 0
        self.last = b""
        """The time of the last line."""

    def connected(self) -> Lines:
        """Put together the lines of a new connection, of which some come again."""
        self._known, self._again = self.last, self._same
        return Lines(self._line)

    def since(self) -> dict[str, int]:
        """How far back a new connection has to reach."""
        try:
            age = (datetime.now(UTC) - datetime.fromisoformat(self.last.decode())).total_seconds()
        except (ValueError, TypeError):  # none was read, or it is no such time
            return {}
        return {"since_seconds": max(0, int(age)) + _AGAIN_SECONDS}

    def _line(self, line: bytes, cut: bool) -> None:
        written, _, text = line.partition(b" ")
        if self._known:
            if written < self._known:
                return
            if written == self._known and self._again:
                self._again -= 1
                return
            self._known = b""  # what follows is new, at whatever time
        self._same = self._same + 1 if written == self.last else 1
        self.last = written
        self._reports.line(text, cut)


def _read_rest(api: Any, namespace: str, name: str, log: _Log, patience: Patience) -> None:
    """What a connection did not bring that broke as the pod ended."""
    while True:
        try:
            return _read(api, namespace, name, log, follow=False)
        except (ApiException, HTTPError) as error:
            if not passes(error):
                raise
            patience.away(error)


def _read(api: Any, namespace: str, name: str, log: _Log, *, follow: bool) -> None:
    """What comes over one connection. Raises ApiException and HTTPError."""
    try:
        answer = api.read_namespaced_pod_log(
            name,
            namespace,
            follow=follow,
            timestamps=True,
            _preload_content=False,
            _request_timeout=_TIMEOUTS,
            **log.since(),
        )
    except ApiException as error:
        if error.status not in _NOT_THERE:
            raise
        return
    lines = log.connected()
    try:
        for piece in answer.stream():
            lines.feed(piece)
        lines.end()
    finally:
        answer.close()


def _pod(api: Any, namespace: str, name: str, patience: Patience) -> Any | None:
    try:
        return read_pod(api, namespace, name, patience)
    except ApiException as error:
        if error.status == 404:
            return None
        raise
