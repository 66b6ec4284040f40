"""The HTTP API as the command line uses it: requests, faults as our errors, runs watched live."""

import json
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeAlias, cast
from urllib.parse import quote

import httpx

from foundation.errors import (
    Conflict,
    Fault,
    Forbidden,
    GraphwrightError,
    Invalid,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from graphwright import sse

JsonObject: TypeAlias = dict[str, Any]

TERMINAL = frozenset({"run.succeeded", "run.failed", "run.cancelled"})

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_KEEP_ALIVE_SECONDS = 60.0  # a stream that is silent for longer is dead: the API sends comments
_RECONNECTS = 8
_MAX_DELAY_SECONDS = 5.0
_BY_STATUS: Mapping[int, type[GraphwrightError]] = {
    error.status: error
    for error in (Unauthenticated, Forbidden, NotFound, Conflict, TooLarge, Unavailable)
}
_CREATED, _NO_CONTENT = 201, 204
_UNREACHABLE = {502, 503, 504}


class RequestRefused(GraphwrightError):
    """The API answered with a fault that has no class of its own here."""

    code = "request_refused"


class Client:
    """One connection to the API at ``url`` with the bearer ``token``.

    Once ``interrupted`` is set, ``watch`` no longer waits for the API to come back.

    Every method raises Unavailable when the API cannot be reached, and the error of
    ``foundation.errors`` that stands for the status of its answer.
    """

    def __init__(self, url: str, token: str, *, interrupted: threading.Event | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Not through a proxy of the environment: the token is for this API alone.
        self._http = httpx.Client(
            base_url=f"{url.rstrip('/')}/api/v1", headers=headers, timeout=_TIMEOUT, trust_env=False
        )
        self._url = url
        self._interrupted = interrupted or threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def apply(self, document: bytes, *, is_json: bool) -> tuple[JsonObject, bool]:
        """Create or update a graph; the graph, and whether that made a new version."""
        kind = "application/json" if is_json else "application/yaml"
        answer = self._send("POST", "/graphs", content=document, headers={"Content-Type": kind})
        return answer.json(), answer.status_code == _CREATED

    def graph(self, graph: str) -> JsonObject:
        return self._send("GET", f"/graphs/{_segment(graph)}").json()

    def graphs(self) -> Iterator[JsonObject]:
        return self._items("/graphs", {})

    def start(self, graph: str, params: JsonObject) -> JsonObject:
        """Start a run; ``{"run_id", "status", "links"}``."""
        path = f"/graphs/{_segment(graph)}/runs"
        return self._send("POST", path, json={"params": params}).json()

    def run(self, run_id: str) -> JsonObject:
        return self._send("GET", f"/runs/{_segment(run_id)}").json()

    def runs(self, *, graph: str | None = None, status: str | None = None) -> Iterator[JsonObject]:
        given = {"graph": graph, "status": status}
        return self._items("/runs", {key: value for key, value in given.items() if value})

    def cancel(self, run_id: str) -> JsonObject:
        return self._send("POST", f"/runs/{_segment(run_id)}/cancel").json()

    def watch(self, run_id: str, after: str | None = None) -> Iterator[JsonObject]:
        """The run's events from the beginning, or after one, until its terminal one.

        Reconnects with ``Last-Event-ID`` when the connection breaks, so nothing is missed or seen
        twice. Raises Unavailable after eight attempts in a row without an event.
        """
        attempt = 0
        while True:
            cause: Exception | str = "its stream of events ended early"
            try:
                with self._stream(run_id, after) as answer:
                    if answer.status_code == _NO_CONTENT:
                        return
                    for message in sse.parse(answer.iter_bytes()):
                        if message.id:
                            after, attempt = message.id, 0
                        event = cast("JsonObject", json.loads(message.data))
                        yield event
                        if event["type"] in TERMINAL:
                            return
            except (httpx.TransportError, Unavailable) as error:
                cause = error
            attempt += 1
            delay = min(0.1 * 2**attempt, _MAX_DELAY_SECONDS)
            if attempt > _RECONNECTS or self._interrupted.wait(delay):
                raise self._unavailable(cause)

    @contextmanager
    def _stream(self, run_id: str, after: str | None) -> Generator[httpx.Response]:
        headers = {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = after
        timeout = httpx.Timeout(_KEEP_ALIVE_SECONDS, connect=5.0)
        path = f"/runs/{_segment(run_id)}/events"
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as answer:
            if answer.is_error:
                answer.read()
            _raise_for_fault(answer)
            yield answer

    def _items(self, path: str, query: dict[str, str]) -> Iterator[JsonObject]:
        cursor: str | None = None
        while True:
            asked = {**query, "limit": "100", **({"cursor": cursor} if cursor else {})}
            page = self._send("GET", path, params=asked).json()
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def _send(self, method: str, path: str, **given: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **given)
        except httpx.TransportError as error:
            raise self._unavailable(error) from error
        _raise_for_fault(answer)
        return answer

    def _unavailable(self, cause: Exception | str) -> Unavailable:
        return Unavailable(
            f"cannot reach the API at {self._url}: {cause}",
            hint="`graphwright up` starts a local stack; GRAPHWRIGHT_API_URL names another API.",
        )


def _segment(value: str) -> str:
    return quote(value, safe="")


def _raise_for_fault(answer: httpx.Response) -> None:
    """Raise the error that a problem+json answer (RFC 9457) describes."""
    if not answer.is_error:
        return
    problem = _problem(answer)
    message = str(problem.get("detail") or problem.get("title") or answer.reason_phrase)
    hint = str(problem.get("hint") or "")
    if problem.get("errors"):
        raise Invalid(message, [Fault(**fault) for fault in problem["errors"]], hint=hint)
    if answer.status_code in _UNREACHABLE:
        raise Unavailable(message, hint=hint)
    raise _BY_STATUS.get(answer.status_code, RequestRefused)(message, hint=hint)


def _problem(answer: httpx.Response) -> JsonObject:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return cast("JsonObject", body) if isinstance(body, dict) else {}
