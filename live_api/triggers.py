"""Triggers: listed, read, switched on and off, fired by hand; when a timer is due next."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeAlias
from uuid import UUID

from fastapi import Depends, Path, Query, Response, status
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field

from dynamic_jobs.creating.idempotency import KeyReused
from dynamic_jobs.creating.launching import Started
from dynamic_jobs.creating.trigger import Trigger
from foundation.errors import Conflict
from foundation.ids import RunId
from graph_defs.cron import zone
from graph_defs.recurrence import recurrence_of
from graph_defs.trigger_store import StoredTrigger
from graph_defs.triggers import TimerTrigger
from live_api.dependencies import GraphPath, Services, require, services
from live_api.identity import Principal
from live_api.problems import problems
from live_api.routing import api_router
from live_api.runs import ACCEPTED, IdempotencyKey, RunState, accepted
from schedules.timers import fire_now, upcoming

PREFIX = "/api/v1/triggers"

router = api_router("/api/v1", "triggers", 401, 403, 503)

Parts = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("triggers:read"))]
Writer = Annotated[Principal, Depends(require("triggers:write"))]
TriggerPath: TypeAlias = Annotated[str, Path(description="The trigger's id.")]

_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 2999
_MAX_FIRES: Final = 1_000


def _has_due_times(value: datetime) -> datetime:
    if not _FIRST_YEAR <= value.year <= _LAST_YEAR:
        raise ValueError(f"the year must be from {_FIRST_YEAR} to {_LAST_YEAR}")
    return value


Instant: TypeAlias = Annotated[AwareDatetime, AfterValidator(_has_due_times)]
"""A point in time about which timers can be asked."""


class TriggerModel(BaseModel):
    """A trigger of a graph's published version."""

    trigger_id: str = Field(
        description="The same for as long as the graph has a trigger of this name and type."
    )
    graph: str = Field(description="The graph's name.")
    graph_id: str
    name: str
    type: Literal["webhook", "timer"]
    enabled: bool = Field(description="Whether it starts runs by itself.")
    url: str | None = Field(description="Of a webhook: where its sender POSTs to.")
    scheme: str | None = Field(description="Of a webhook: how its sender proves itself.")
    secret: str | None = Field(description="Of a webhook: the name of its secret.")
    next_due_at: datetime | None = Field(
        description="Of a timer: its next due time. Null where it is disabled or never due again."
    )
    config: Mapping[str, Any] = Field(description="The trigger, as the document has it.")
    last_fault: str | None = Field(
        description="Why it last started no run though it should have; null since it was changed."
    )
    last_fault_at: datetime | None
    created_at: datetime
    updated_at: datetime = Field(description="When a version last changed it.")


class TriggerList(BaseModel):
    """All triggers of a graph, by their names."""

    items: list[TriggerModel]
    next_cursor: None = Field(default=None, description="Always null: there are no further pages.")


class FireModel(BaseModel):
    """A time at which a timer starts a run."""

    due_at: datetime = Field(description="In UTC.")
    due_at_local: datetime = Field(description="The same, in the timer's time zone.")
    fire_at: datetime = Field(description="When the run starts: `due_at`, with its jitter.")


class FireList(BaseModel):
    """The next due times of a timer."""

    timezone: str = Field(description="The timer's time zone, as IANA names it.")
    items: list[FireModel] = Field(description="In order; fewer than asked for where it ends.")


@router.get(
    "/graphs/{graph}/triggers", summary="List the triggers of a graph", responses=problems(404)
)
async def list_triggers(graph: GraphPath, parts: Parts, caller: Reader) -> TriggerList:
    """The triggers of the graph's published version, with the URLs of its webhooks."""
    graph_id = (await parts.store.get(caller.tenant, graph)).graph_id
    found = await parts.triggers.of_graph(caller.tenant, graph_id)
    return TriggerList(items=[_model(each, parts) for each in found])


@router.get("/triggers/{trigger_id}", summary="Read a trigger", responses=problems(404))
async def read_trigger(trigger_id: TriggerPath, parts: Parts, caller: Reader) -> TriggerModel:
    """One trigger, by its id."""
    return _model(await parts.triggers.get(caller.tenant, trigger_id), parts)


@router.post("/triggers/{trigger_id}/enable", summary="Enable a trigger", responses=problems(404))
async def enable(trigger_id: TriggerPath, parts: Parts, caller: Writer) -> TriggerModel:
    """A timer goes on at its next due time; what it missed meanwhile is left out."""
    return await _set_enabled(trigger_id, parts, caller, enabled=True)


@router.post("/triggers/{trigger_id}/disable", summary="Disable a trigger", responses=problems(404))
async def disable(trigger_id: TriggerPath, parts: Parts, caller: Writer) -> TriggerModel:
    """It starts no more runs, also when other versions are published, until it is enabled.

    A webhook's address answers 404 meanwhile. Within seconds everywhere.
    """
    return await _set_enabled(trigger_id, parts, caller, enabled=False)


@router.post(
    "/triggers/{trigger_id}/fire",
    summary="Fire a timer now",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=RunState,
    response_description="The run is queued, durably.",
    responses=ACCEPTED | problems(404, 409, 413, 422, 429),
)
async def fire(
    trigger_id: TriggerPath,
    parts: Parts,
    caller: Writer,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Starts a run as if the timer were due now, also where it is disabled.

    The run's trigger says `"manual": true`. The timer's own due times stay as they are.
    """
    stored = await parts.triggers.get(caller.tenant, trigger_id)
    if stored.type == "webhook":
        raise Conflict(
            "a webhook has nothing to start a run with until it is called",
            hint="Deliver an earlier call again, with `POST /api/v1/deliveries/{delivery_id}/"
            "redeliver`, or POST to the trigger's URL.",
            trigger_id=stored.trigger_id,
        )
    trigger = await fire_now(stored, datetime.now(UTC), parts.evaluator)
    trigger = replace(trigger, idempotency_key=idempotency_key)
    return await accepted(parts, caller, await _start(parts, stored, trigger))


@router.get(
    "/triggers/{trigger_id}/fires",
    summary="Preview the next due times of a timer",
    responses=problems(404, 409, 422),
)
async def preview(
    trigger_id: TriggerPath,
    parts: Parts,
    caller: Reader,
    count: Annotated[int, Query(ge=1, le=_MAX_FIRES, description="Due times to show.")] = 10,
    after: Annotated[
        Instant | None,
        Query(description="Only those later than this; RFC 3339, with an offset. By default now."),
    ] = None,
) -> FireList:
    """When the timer will be due, also where it is disabled."""
    stored = await parts.triggers.get(caller.tenant, trigger_id)
    # A thousand of them take a while: not on the event loop.
    return await asyncio.to_thread(_fires, stored, after or datetime.now(UTC), count)


async def _set_enabled(
    trigger_id: str, parts: Services, caller: Principal, *, enabled: bool
) -> TriggerModel:
    return _model(
        await parts.triggers.set_enabled(caller.tenant, trigger_id, enabled=enabled), parts
    )


async def _start(parts: Services, stored: StoredTrigger, trigger: Trigger) -> Started:
    try:
        return await parts.creator.start(stored.tenant, stored.graph_id, trigger)
    except KeyReused as error:
        # Sent again, it was due later, so its params may differ from the first time.
        run_id = RunId(error.ids["run_id"])
        cause = (await parts.runs.get(stored.tenant, run_id)).trigger
        if cause.get("trigger_id") != stored.trigger_id or "manual" not in cause:
            raise
        return Started(run_id, replayed=True)


def _fires(stored: StoredTrigger, after: datetime, count: int) -> FireList:
    due = upcoming(stored, after, count)
    recurrence = recurrence_of(TimerTrigger.model_validate(stored.config))
    place, trigger_id = zone(recurrence.timezone), UUID(stored.trigger_id)
    return FireList(
        timezone=recurrence.timezone,
        items=[
            FireModel(
                due_at=due_at,
                due_at_local=due_at.astimezone(place),
                fire_at=recurrence.fire_at(trigger_id, due_at),
            )
            for due_at in due
        ],
    )


def _model(stored: StoredTrigger, parts: Services) -> TriggerModel:
    url = None if stored.address is None else f"{parts.settings.hooks_url}/hooks/{stored.address}"
    return TriggerModel.model_validate(
        {
            **asdict(stored),
            "url": url,
            "scheme": stored.config.get("scheme"),
            "secret": stored.config.get("secret"),
        }
    )
