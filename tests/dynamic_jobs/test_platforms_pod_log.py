"""A pod is followed while its API server breaks connections, refuses them, or does not answer."""

import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from dagster_k8s.client import DagsterKubernetesClient
from kubernetes.client import ApiClient, ApiException, Configuration, CoreV1Api
from urllib3.exceptions import HTTPError, MaxRetryError, ProtocolError

from dynamic_jobs.platforms import patience, pod_log, pods
from dynamic_jobs.platforms.base import StepNotStarted
from dynamic_jobs.platforms.kubernetes import _Client  # pyright: ignore[reportPrivateUsage]
from dynamic_jobs.platforms.pods import bound
from dynamic_jobs.platforms.reports import Reports
from graph_defs.step_policy import StepPolicy
from tests.dynamic_jobs.steps import Told

REFUSED = MaxRetryError(None, "/", OSError("connection refused"))  # pyright: ignore
BROKEN = ProtocolError("connection broken")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_log, "_PAUSE_SECONDS", 0)
    monkeypatch.setattr(patience, "_PAUSE_SECONDS", 0)


def stamped(*lines: str) -> list[str]:
    """Two lines have each time: what tells them apart is only their number."""
    return [f"2026-11-21T19:00:{n // 2:02}.000000000Z {line}" for n, line in enumerate(lines)]


class Api:
    """Of the client what following a pod calls. Each answer to a request for its log, or for the
    pod, is an error, or lines and how the connection ends, or a phase; the last one stays."""

    def __init__(self, logs: Sequence[Any], phases: Sequence[Any]) -> None:
        self._logs, self._phases = list(logs), list(phases)
        self.connections = 0

    def read_namespaced_pod_log(self, *_: Any, **__: Any) -> Any:
        self.connections += 1
        lines, end = _next(self._logs)

        def stream() -> Iterator[bytes]:
            for line in lines:
                yield f"{line}\n".encode()
            if end is not None:
                yield b"2026-11-21T20:00:00Z half of a li"
                raise end

        return SimpleNamespace(stream=stream, close=lambda: None)

    def read_namespaced_pod(self, *_: Any) -> Any:
        phase = _next(self._phases)
        conditions = [SimpleNamespace(type="PodScheduled", status="False", message="no room")]
        status = {"phase": phase, "container_statuses": None, "conditions": conditions}
        return SimpleNamespace(status=SimpleNamespace(**status))


def _next(answers: list[Any]) -> Any:
    answer = answers[0] if len(answers) == 1 else answers.pop(0)
    if isinstance(answer, Exception):
        raise answer
    return answer


def follow(told: Told, api: Api) -> Any:
    step = told.step()
    return pod_log.follow(api, "steps", "pod", Reports(step.context, step.limits), told.ending)


def test_nothing_is_lost_or_told_twice_however_connections_end() -> None:
    lines = stamped("one", "two", "three", "four", "five")
    away = ApiException(status=503)
    logs: list[Any] = [
        (lines[:1], BROKEN), REFUSED, away, *[([], BROKEN)] * 8, (lines[:3], BROKEN),
        (lines[:4], BROKEN), (lines, None),
    ]  # fmt: skip
    phases = ["Running", REFUSED, away, *["Running"] * 11, "Succeeded"]
    told = Told(StepPolicy())
    api = Api(logs, phases)
    assert follow(told, api) is not None
    assert told.lines == ["one", "two", "three", "four", "five"]
    assert api.connections == len(logs)


def test_what_a_connection_lost_that_broke_as_the_pod_ended_is_read_again() -> None:
    lines = stamped("one", "two")
    told = Told(StepPolicy())
    follow(told, Api([(lines[:1], BROKEN), REFUSED, (lines, None)], ["Succeeded"]))
    assert told.lines == ["one", "two"]


def test_a_pod_that_is_gone_is_told_of() -> None:
    gone = ApiException(status=404)
    assert follow(Told(StepPolicy()), Api([gone], [gone])) is None


def test_a_cluster_that_stays_away_or_refuses_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ApiException):
        follow(Told(StepPolicy()), Api([ApiException(status=403)], ["Running"]))
    monkeypatch.setattr(patience, "AWAY_SECONDS", 0)
    with pytest.raises(MaxRetryError):
        follow(Told(StepPolicy()), Api([REFUSED], [REFUSED]))
    monkeypatch.undo()
    told = Told(StepPolicy())
    told.ending.set()
    with pytest.raises(MaxRetryError):
        follow(told, Api([REFUSED], [REFUSED]))


def test_a_pod_that_does_not_start_is_given_up() -> None:
    told = Told(StepPolicy(), start_seconds=0)
    step = told.step()
    client = _Client(step, Reports(step.context, step.limits))
    wait: Callable[..., None] = client._await_start  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(StepNotStarted, match="not started in 0 seconds: no room"):
        wait(Api([], ["Pending"]), "steps", "pod")


@pytest.fixture
def silent() -> Generator[str]:
    """A server that takes connections, and does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    taken.append(server.accept()[0])
            except OSError:
                return

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for each in taken:
            each.close()


def test_a_request_that_is_not_answered_ends(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pods, "_TIMEOUTS", (0.05, 0.05))
    plain = CoreV1Api(ApiClient(Configuration(host=silent)))
    api: Any = bound(DagsterKubernetesClient.production_client(None, plain).core_api)
    for request in (
        lambda: api.list_namespaced_pod("steps"),
        lambda: api.delete_namespaced_pod("pod", "steps"),
    ):
        with pytest.raises(HTTPError):
            request()
