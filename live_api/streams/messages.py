"""What a client of the socket for many streams says, and what it is told.

Each message is a JSON object with an ``op``. docs/events.md has all of them.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from dynamic_jobs.reading.events import EventType, RunEvent
from dynamic_jobs.reading.many_tail import Placed
from foundation.errors import GraphwrightError
from live_api.streams.selection import RunStatus

MAX_MESSAGE_BYTES = 64 * 2**10

Ref = Annotated[str, Field(min_length=1, max_length=200)]


class BadMessage(GraphwrightError):
    """A client sent what is no message of ours."""

    code = "bad_message"
    status = 400


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Subscribe(_Message):
    """To a run, to a graph, or to all runs; to the latter two from now on, or after a place."""

    op: Literal["subscribe"]
    ref: Ref
    run_id: str | None = None
    graph: str | None = None
    all: Literal[True] | None = None
    after: str | None = None
    types: list[EventType] = []
    statuses: list[RunStatus] = []
    labels: list[Annotated[str, Field(max_length=320)]] = []

    @model_validator(mode="after")
    def _of_one_kind(self) -> "Subscribe":
        given = [name for name in ("run_id", "graph", "all") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("one of `run_id`, `graph` and `all` is needed")
        if self.run_id is not None and (self.types or self.statuses or self.labels):
            raise ValueError("a run's events have no filters")
        return self


class Unsubscribe(_Message):
    op: Literal["unsubscribe"]
    ref: Ref


class Authenticate(_Message):
    op: Literal["authenticate"]
    token: str


class Ping(_Message):
    op: Literal["ping"]


Message: TypeAlias = Subscribe | Unsubscribe | Authenticate | Ping

_MESSAGE = TypeAdapter[Message](Annotated[Message, Field(discriminator="op")])


def parse(text: str) -> Message:
    """Raises :class:`BadMessage`."""
    if len(text) > MAX_MESSAGE_BYTES:
        raise BadMessage("the message is too long")
    try:
        return _MESSAGE.validate_python(orjson.loads(text))
    except orjson.JSONDecodeError as error:
        raise BadMessage("the message is no JSON") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"][1:]))
        raise BadMessage(f"{where}: {first['msg']}" if where else first["msg"]) from error


def ref_of(text: str) -> str | None:
    """The ``ref`` of something that was no message, where it has one."""
    try:
        ref = orjson.loads(text).get("ref")
    except (orjson.JSONDecodeError, AttributeError):
        return None
    return ref if isinstance(ref, str) else None


def told(op: str, **more: Any) -> str:
    return orjson.dumps({"op": op, **more}).decode()


def told_error(error: GraphwrightError, ref: str | None) -> str:
    return told("error", ref=ref, code=error.code, message=error.message, hint=error.hint)


def run_events(events: Sequence[RunEvent]) -> list[str]:
    """The end of each event's message, after its ``ref``."""
    return [_tail_of(event["id"], event) for event in events]


def many_events(events: Sequence[Placed]) -> list[str]:
    """As :func:`run_events`, with the event's place among many runs."""
    return [_tail_of(str(each.position), each.event) for each in events]


def event_head(ref: str) -> str:
    """The beginning of each event's message to a subscription."""
    return told("event", ref=ref)[:-1] + ","


def _tail_of(identity: str, event: Mapping[str, Any]) -> str:
    return orjson.dumps({"id": identity, "event": event}).decode()[1:]
