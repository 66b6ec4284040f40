"""Deliveries: the inbox of webhooks, listed, read and delivered again."""

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from fastapi import Depends, Path, Query, Response, status
from pydantic import BaseModel, ConfigDict, Field

from foundation.ids import TriggerId
from graph_defs.finding import UUID
from live_api.dependencies import Services, require, services
from live_api.identity import Principal
from live_api.paging import Cursor, NextCursor
from live_api.problems import problems
from live_api.routing import api_router
from sensors.deliveries import StoredDelivery, Verdict

PREFIX = "/api/v1/deliveries"

router = api_router(PREFIX, "deliveries", 401, 403, 503)

Parts = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("triggers:read"))]
Writer = Annotated[Principal, Depends(require("triggers:write"))]
DeliveryPath: TypeAlias = Annotated[str, Path(description="The delivery's id.")]


class DeliveryModel(BaseModel):
    """A call of a webhook, as lists show it."""

    model_config = ConfigDict(from_attributes=True)

    delivery_id: str
    trigger_id: str
    trigger: str | None = Field(description="The trigger's name; null where it is gone.")
    graph_id: str
    graph: str | None = Field(description="The graph's name.")
    received_at: datetime
    verdict: Verdict = Field(
        description="`pending`: it waits. `started`: `run_id` is its run. `filtered`: the filter "
        "does not want it. `rejected`: it cannot become a run, for the `reason`. `refused`: it "
        "did not prove who sent it; a few such calls are kept, without their bodies."
    )
    reason: str | None = Field(description="Why it was rejected or refused.")
    run_id: str | None
    latency_ms: float | None = Field(
        description="Milliseconds from its arrival to its verdict; null while it waits."
    )
    sender_id: str | None = Field(description="The sender's own id of it.")
    redelivery_of: str | None = Field(description="The delivery that this one repeats.")
    size: int | None = Field(description="Bytes of its body; null where that was not kept.")


class DeliveryDetail(DeliveryModel):
    """A call of a webhook, with all that was kept of it."""

    headers: Mapping[str, str] = Field(
        description="Names in lower case; without those that prove who sent it."
    )
    query: Mapping[str, str | list[str]]
    body: str | None = Field(description="As `body_encoding` says; null where it was not kept.")
    body_encoding: Literal["utf-8", "base64"] | None = Field(
        description="`utf-8`: the body is text, and this is it. `base64`: it is other bytes."
    )


class DeliveryPage(BaseModel):
    """Some of the tenant's deliveries, newest first."""

    items: list[DeliveryModel]
    next_cursor: NextCursor


@router.get("", summary="List deliveries", responses=problems(404, 422))
async def list_deliveries(
    parts: Parts,
    caller: Reader,
    trigger: Annotated[
        str | None,
        Query(
            pattern=f"^{UUID.pattern}$",
            description="Deliveries of this trigger only, by its id; also of one that is gone.",
        ),
    ] = None,
    graph: Annotated[
        str | None, Query(description="Deliveries of this graph only; id or name.")
    ] = None,
    verdict: Annotated[
        Verdict | None, Query(description="Deliveries with this verdict only.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Deliveries of one page.")] = 50,
    cursor: Cursor = None,
) -> DeliveryPage:
    """The calls of the tenant's webhooks, newest first. Repeated calls are not among them."""
    graph_id = None
    if graph is not None:
        graph_id = (await parts.store.get(caller.tenant, graph)).graph_id
    page = await parts.deliveries.list(
        caller.tenant,
        limit,
        cursor,
        trigger_id=None if trigger is None else TriggerId(trigger),
        graph_id=graph_id,
        verdict=verdict,
    )
    items = [DeliveryModel.model_validate(each) for each in page.items]
    return DeliveryPage(items=items, next_cursor=page.next_cursor)


@router.get("/{delivery_id}", summary="Read a delivery", responses=problems(404))
async def read_delivery(delivery_id: DeliveryPath, parts: Parts, caller: Reader) -> DeliveryDetail:
    """One delivery, with its headers, query and body."""
    return _detail(await parts.deliveries.get(caller.tenant, delivery_id))


@router.post(
    "/{delivery_id}/redeliver",
    summary="Deliver a call again",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="The new delivery is in the inbox, durably, and waits for its verdict.",
    responses={
        202: {
            "headers": {
                "Location": {
                    "description": "The new delivery, as a path of this API.",
                    "schema": {"type": "string"},
                }
            }
        },
        **problems(404, 409),
    },
)
async def redeliver(
    delivery_id: DeliveryPath, response: Response, parts: Parts, caller: Writer
) -> DeliveryDetail:
    """Makes a new delivery of the same content, for the trigger as it is published now.

    Whatever became of the first, unless it was refused. There is no Idempotency-Key: each request
    makes one more delivery, and the inbox shows which one it repeats.
    """
    new = await parts.deliveries.redeliver(caller.tenant, delivery_id)
    response.headers["Location"] = f"{PREFIX}/{new.delivery_id}"
    return _detail(new)


def _detail(stored: StoredDelivery) -> DeliveryDetail:
    summary = DeliveryModel.model_validate(stored)
    body, encoding = _text(stored.body)
    return DeliveryDetail(
        **summary.model_dump(),
        headers=stored.headers,
        query=stored.query,
        body=body,
        body_encoding=encoding,
    )


def _text(body: bytes | None) -> tuple[str | None, Literal["utf-8", "base64"] | None]:
    if body is None:
        return None, None
    try:
        return body.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), "base64"
