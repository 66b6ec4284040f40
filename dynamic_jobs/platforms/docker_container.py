"""The container of one step: followed, ended when the step is to end, and removed.

No request to Docker is waited for longer than it may take: a daemon can hang while the container
goes on.
"""

import logging
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, Final, cast

from docker.errors import DockerException
from docker.models.containers import Container
from requests import Response
from requests.exceptions import ConnectionError as ConnectionBroken
from requests.exceptions import ReadTimeout, RequestException

from dynamic_jobs.platforms.base import Step, beside
from dynamic_jobs.platforms.containers import ANSWER_SECONDS, remove
from dynamic_jobs.platforms.lines import Lines
from dynamic_jobs.platforms.patience import Patience
from dynamic_jobs.platforms.reports import Reports
from node_types.base import NodeCancelled

_log = logging.getLogger(__name__)

_STREAMS: Final = ("stdout", "stderr")
_WAIT_SECONDS: Final = 30.0
"""After which Docker is asked whether it is still there."""
_REST_SECONDS: Final = 10.0
"""For what the container has written last, once it has ended."""
_LAST_SECONDS: Final = 2.0
"""For what has to be over by now, when the step is to end."""


class StepContainer:
    """What Pipes' client gets for the container. It calls ``start``, ``wait`` and ``stop``.

    The latter two ask Docker for nothing: the container has ended by then, or is given up.
    """

    def __init__(self, container: Container, step: Step, reports: Reports) -> None:
        self._container = container
        self._step = step
        self._reports = reports
        self._open: dict[str, Any] = {}
        self._answers: list[Response] = []
        self._threads: ThreadPoolExecutor | None = None
        self._over = threading.Event()
        self.started = False
        self.code: int | None = None
        """The exit code, once it has ended."""

    def start(self) -> None:
        """Raises APIError and RequestException."""
        self._container.start()
        self.started = True
        # Making and starting one may copy an image; what is asked from now on is quick.
        self._client.api.timeout = ANSWER_SECONDS
        # Of what comes piece by piece: docker-py drops it, open, where its next request fails.
        self._client.api.hooks["response"].append(self._keep)

    def wait(self) -> dict[str, Any]:
        return {"StatusCode": self.code}

    def stop(self) -> None:
        pass

    def follow(self) -> None:
        """Feed what it writes until it has ended, or has not within the grace that it has for that.

        Raises NodeCancelled, APIError and RequestException.
        """
        grace = max(1, int(self._step.limits.grace_seconds) - 1)
        # Streams apart, since a long line comes in pieces and the other's would get in between.
        threads = ThreadPoolExecutor(len(_STREAMS) + 2, thread_name_prefix="container")
        self._threads = threads
        following = [threads.submit(self._follow, name) for name in _STREAMS]
        ended, told = threads.submit(self._ended), Future[Any]()

        def stop() -> None:
            threads.submit(self._stop, grace)
            told.set_result(None)

        try:
            with self._step.ending.stopping(stop):
                either: list[Future[Any]] = [ended, told]
                wait(either, return_when=FIRST_COMPLETED)
            if told.done():
                wait([ended], timeout=grace + _LAST_SECONDS)
                if not ended.done():
                    raise NodeCancelled("the container was told to end, and Docker does not answer")
            self.code = ended.result()
            wait(following, timeout=_LAST_SECONDS if told.done() else _REST_SECONDS)
        finally:
            self._over.set()
            for stream in list(self._open.values()):
                _close(stream)  # or it would not end: podman loses track of some
            threads.shutdown(wait=False)  # they end by themselves: each request has a timeout
        wait(following, timeout=_LAST_SECONDS)

    def used_too_much_memory(self) -> bool:
        """Of one that has ended; False where that cannot be told."""
        with suppress(DockerException, RequestException):
            self._container.reload()
            return bool(cast("dict[str, Any]", self._container.attrs["State"]).get("OOMKilled"))
        return False

    def remove(self) -> None:
        """Have it removed, whether it has ended or not. Never raises, and does not wait long."""
        self._client.api.timeout = ANSWER_SECONDS

        def work() -> None:
            try:
                remove(self._client, [str(self._container.id)])
            finally:
                if self._threads is not None:
                    self._threads.shutdown()  # whoever asks after this would connect anew
                for answer in self._answers:
                    answer.close()
                self._client.close()  # Pipes' client leaves it open

        beside(work, f"container {self._container.name}")

    @property
    def _client(self) -> Any:
        return self._container.client

    def _keep(self, answer: Response, *_: Any, stream: bool = False, **__: Any) -> None:
        if stream:
            self._answers.append(answer)

    def _stop(self, grace: int) -> None:
        try:
            self._container.stop(timeout=grace)
        except (DockerException, RequestException) as error:
            _log.info("container %s would not be stopped: %s", self._container.name, error)

    def _ended(self) -> int:
        """Wait for its end, or until nobody does. Raises APIError and RequestException."""
        patience = Patience(self._step.ending)
        while True:
            with suppress(ReadTimeout, ConnectionBroken):
                return int(self._container.wait(timeout=_WAIT_SECONDS)["StatusCode"])
            try:
                self._container.reload()
            except ReadTimeout as error:  # it hangs: the container goes on
                patience.away(error)
            else:
                patience.answered()
            if self._over.is_set():
                raise NodeCancelled("the container is given up")

    def _follow(self, name: str) -> None:
        lines = Lines(self._reports.line)
        wanted = {stream: stream == name for stream in _STREAMS}
        try:
            while not self._over.is_set():
                # Podman answers with the first line only: until then this may time out.
                with suppress(ReadTimeout):
                    stream = self._container.logs(stream=True, follow=True, **wanted)
                    self._open[name] = stream
                    if self._over.is_set():
                        _close(stream)  # nobody else does any more
                    for piece in cast("Any", stream):
                        lines.feed(piece)
                    break
        except (DockerException, RequestException) as error:
            self._reports.log("warning", f"what the container writes is lost from here on: {error}")
        finally:
            self._open.pop(name, None)
        lines.end()


def _close(stream: Any) -> None:
    with suppress(OSError, AttributeError):  # it has ended at this moment
        stream.close()
