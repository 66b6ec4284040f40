"""Runs: start, follow, wait for, control."""

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, overload
from uuid import uuid4

from graphwright.client.asynchronous import Async
from graphwright.client.calls import (
    IDEMPOTENCY_KEY,
    Call,
    Listing,
    Stream,
    given,
    json_body,
    members,
    segment,
)
from graphwright.client.resource import Resource, S, call, listing, stream
from graphwright.client.sync import Sync
from graphwright.client.types import (
    BatchedRun,
    Notice,
    Run,
    RunRequest,
    RunState,
    RunStatus,
    RunSummary,
    StreamToken,
    Watchers,
)


def keyed(idempotency_key: str | None) -> dict[str, str]:
    """The header for a request that starts something: with a key of its own where none is given,
    so that it may be sent again when no answer came."""
    return {IDEMPOTENCY_KEY: idempotency_key or str(uuid4())}


def _started(answer: Any) -> Sequence[BatchedRun]:
    return json_body(answer)["items"]


class Runs(Resource[S]):
    """``graph`` is a graph's name or id; ``params`` is the run's input.

    With an ``idempotency_key`` the same request is the same run, however often it is made within
    ``GRAPHWRIGHT_IDEMPOTENCY_HOURS``.
    """

    @call
    def start(
        self,
        graph: str,
        params: Mapping[str, Any] | None = None,
        *,
        priority: int | None = None,
        not_before: str | None = None,
        live: bool | None = None,
        idempotency_key: str | None = None,
    ) -> Call[RunState]:
        """Queue a run, durably.

        ``priority``: the highest of a tenant starts first. ``not_before``: RFC 3339 with an offset.
        ``live`` False: its events are stored and not pushed.
        """
        asked = members(params=params, priority=priority, not_before=not_before, live=live)
        path = f"/graphs/{segment(graph)}/runs"
        return Call("POST", path, json=asked, headers=keyed(idempotency_key))

    @call
    def batch(
        self, runs: Sequence[RunRequest], *, idempotency_key: str | None = None
    ) -> Call[Sequence[BatchedRun]]:
        """Start up to 1,000 runs, all or none, in order.

        Raises Invalid, whose faults' pointers begin with the run's place: ``/runs/3/params``.
        """
        headers = keyed(idempotency_key)
        return Call("POST", "/runs/batch", _started, json={"runs": list(runs)}, headers=headers)

    @call
    def get(self, run_id: str) -> Call[Run]:
        return Call("GET", f"/runs/{segment(run_id)}")

    @listing
    def list(
        self,
        *,
        graph: str | None = None,
        status: RunStatus | Sequence[RunStatus] | None = None,
        label: dict[str, str] | None = None,
        error: str | None = None,
    ) -> Listing[RunSummary]:
        """Newest first: of a graph, of these statuses, failed by an error of this code."""
        return Listing("/runs", given(graph=graph, status=status, label=label, error=error))

    @stream
    def events(self, run_id: str, *, after: str | None = None) -> Stream:
        """The run's events from its first, or behind that of the id ``after``, to its last.

        Follows the run live, over as many connections as it takes: nothing is missed and nothing
        comes twice.
        """
        return _events(run_id, after)

    @overload
    def wait(self: "Runs[Sync]", run_id: str, *, timeout: float | None = None) -> Run: ...
    @overload
    def wait(
        self: "Runs[Async]", run_id: str, *, timeout: float | None = None
    ) -> Coroutine[Any, Any, Run]: ...
    def wait(
        self: "Runs[Sync] | Runs[Async]", run_id: str, *, timeout: float | None = None
    ) -> Run | Coroutine[Any, Any, Run]:
        """The run, once it has ended, however it did.

        Raises TimeoutError after ``timeout`` seconds; the run goes on.
        """
        transport = self.transport
        return transport.follow(_events(run_id, None), Call("GET", _run(run_id)), timeout)

    @call
    def output(self, run_id: str, node: str) -> Call[Any]:
        """The JSON value that a node made."""
        return Call("GET", f"{_run(run_id)}/nodes/{segment(node)}/output")

    @call
    def cancel(self, run_id: str) -> Call[RunState]:
        return Call("POST", f"{_run(run_id)}/cancel")

    @call
    def pause(self, run_id: str) -> Call[RunState]:
        """Start none of its nodes until it is resumed; those under way may finish."""
        return Call("POST", f"{_run(run_id)}/pause")

    @call
    def resume(self, run_id: str) -> Call[RunState]:
        return Call("POST", f"{_run(run_id)}/resume")

    @call
    def rerun(
        self,
        run_id: str,
        begin: str = "start",
        *,
        params: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Call[RunState]:
        """Start a run that repeats this one from its ``start``, what ``failed``, or a node.

        ``params`` None are those of this one.
        """
        asked = {"from": begin, **members(params=params)}
        return Call("POST", f"{_run(run_id)}/rerun", json=asked, headers=keyed(idempotency_key))

    @listing
    def notices(self, run_id: str) -> Listing[Notice]:
        """What its end has set off, by the names of the graph's ``notify``."""
        return Listing(f"{_run(run_id)}/notices", paged=False)

    @call
    def stream_token(self, run_id: str) -> Call[StreamToken]:
        """A token for a browser, which reads this run's events for some minutes."""
        return Call("POST", f"{_run(run_id)}/stream-token")

    @call
    def watchers(self, run_id: str) -> Call[Watchers]:
        """Who follows it just now."""
        return Call("GET", f"{_run(run_id)}/watchers")


def _run(run_id: str) -> str:
    return f"/runs/{segment(run_id)}"


def _events(run_id: str, after: str | None) -> Stream:
    return Stream(f"{_run(run_id)}/events", after=after, ends=True)
