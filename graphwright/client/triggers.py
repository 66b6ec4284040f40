"""What starts runs by itself: triggers, the deliveries of webhooks, backfills of timers."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, overload

from graphwright.client.account_types import (
    Backfill,
    BackfillDetail,
    Delivery,
    DeliveryDetail,
    Fire,
    Trigger,
)
from graphwright.client.asynchronous import Async
from graphwright.client.calls import Call, Listing, given, json_body, segment
from graphwright.client.resource import Resource, S, call, listing
from graphwright.client.runs import keyed
from graphwright.client.sync import Sync
from graphwright.client.types import RunState

_POLL_SECONDS = 1.0  # backfills have no stream of events


def _fires(answer: Any) -> Sequence[Fire]:
    return json_body(answer)["items"]


class Triggers(Resource[S]):
    """Webhooks and timers."""

    @listing
    def list(self, graph: str) -> Listing[Trigger]:
        """A graph's, by their names."""
        return Listing(f"/graphs/{segment(graph)}/triggers", paged=False)

    @call
    def get(self, trigger_id: str) -> Call[Trigger]:
        return Call("GET", f"/triggers/{segment(trigger_id)}")

    @call
    def enable(self, trigger_id: str) -> Call[Trigger]:
        return Call("POST", f"/triggers/{segment(trigger_id)}/enable")

    @call
    def disable(self, trigger_id: str) -> Call[Trigger]:
        return Call("POST", f"/triggers/{segment(trigger_id)}/disable")

    @call
    def fire(self, trigger_id: str, *, idempotency_key: str | None = None) -> Call[RunState]:
        """Start a run as if a timer were due now."""
        path = f"/triggers/{segment(trigger_id)}/fire"
        return Call("POST", path, headers=keyed(idempotency_key))

    @call
    def fires(
        self, trigger_id: str, *, count: int = 10, after: str | None = None
    ) -> Call[Sequence[Fire]]:
        """The next due times of a timer."""
        path = f"/triggers/{segment(trigger_id)}/fires"
        return Call("GET", path, _fires, given(count=count, after=after))

    @call
    def backfill(
        self,
        trigger_id: str,
        start: str,
        end: str,
        *,
        max_running: int = 16,
        idempotency_key: str | None = None,
    ) -> Call[BackfillDetail]:
        """Ask for a run for each due time of a timer from ``start`` and before ``end``."""
        asked = {"from": start, "to": end, "max_running": max_running}
        path = f"/triggers/{segment(trigger_id)}/backfills"
        return Call("POST", path, json=asked, headers=keyed(idempotency_key))


class Backfills(Resource[S]):
    """A timer's graph run for each due time of a past range."""

    @listing
    def list(self) -> Listing[Backfill]:
        """Newest first."""
        return Listing("/backfills")

    @call
    def get(self, backfill_id: str) -> Call[BackfillDetail]:
        return Call("GET", f"/backfills/{segment(backfill_id)}")

    @call
    def cancel(self, backfill_id: str) -> Call[BackfillDetail]:
        return Call("POST", f"/backfills/{segment(backfill_id)}/cancel")

    @overload
    def watch(self: "Backfills[Sync]", backfill_id: str) -> Iterator[BackfillDetail]: ...
    @overload
    def watch(self: "Backfills[Async]", backfill_id: str) -> AsyncIterator[BackfillDetail]: ...
    def watch(
        self: "Backfills[Sync] | Backfills[Async]", backfill_id: str
    ) -> Iterator[BackfillDetail] | AsyncIterator[BackfillDetail]:
        """The backfill as it stands, and again whenever that has changed, until it has ended."""
        read: Call[BackfillDetail] = Call("GET", f"/backfills/{segment(backfill_id)}")
        return self.transport.polled(read, _has_ended, _POLL_SECONDS)


class Deliveries(Resource[S]):
    """The calls of webhooks."""

    @listing
    def list(
        self,
        *,
        graph: str | None = None,
        trigger_id: str | None = None,
        verdict: str | None = None,
    ) -> Listing[Delivery]:
        """Newest first: of a graph, of a trigger, with a verdict."""
        return Listing("/deliveries", given(graph=graph, trigger=trigger_id, verdict=verdict))

    @call
    def get(self, delivery_id: str) -> Call[DeliveryDetail]:
        return Call("GET", f"/deliveries/{segment(delivery_id)}")

    @call
    def redeliver(self, delivery_id: str) -> Call[DeliveryDetail]:
        """Deliver it again; the new delivery."""
        return Call("POST", f"/deliveries/{segment(delivery_id)}/redeliver")


def _has_ended(backfill: BackfillDetail) -> bool:
    return backfill["ended_at"] is not None
