"""What every scheme works with: a call, what is found of it, and what all of them ask for."""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, cast

import orjson

from foundation.errors import Unauthenticated
from graph_defs.triggers import WebhookTrigger, seconds_of

TOLERANCE_SECONDS: Final = 300
"""How far the time that a sender signed may lie from ours, either way: what Stripe, Slack and
Standard Webhooks recommend."""

FORM: Final = "application/x-www-form-urlencoded"

_BY_ID_SECONDS: Final = 3 * 86_400
_BY_CONTENT_SECONDS: Final = 300
_WHILE_IT_PASSES: Final = 2 * TOLERANCE_SECONDS + 60
"""From the earliest moment at which a signed time passes to the latest. A minute more: a call is
judged by when it came, before its body was read and it was stored; and receivers' clocks differ.
"""
_ID: Final = "id:"
_TIME = re.compile(r"[0-9]{1,11}")
_SENDER_ID = re.compile(r"[!-~]{1,255}")


@dataclass(frozen=True, slots=True)
class Call:
    """An HTTP request as it came in."""

    headers: Mapping[str, str]
    """Names in lower case; the values of a repeated name joined by commas."""
    query: str
    body: bytes
    at: float
    """Unix time at which it came."""


@dataclass(frozen=True, slots=True)
class Verified:
    """The sender is who it should be."""

    keys: tuple[str, ...]
    """By which the same call is known when it comes again: each by itself is enough."""
    sender_id: str | None = None
    """The sender's own id of the call."""
    is_timed: bool = False
    """The sender signed the time, so that this very call does not pass for ever."""
    answer: Mapping[str, str] | None = None
    """The call only asks whether anybody is there: what to answer it with."""
    silent: bool = False
    """The sender shows people what it is answered, so that must be empty."""


class Refused(Unauthenticated):
    """The call does not prove who sent it. Why not is for the trigger's owner alone to know."""

    code: ClassVar[str] = "not_proven"


def kept_keys(trigger: WebhookTrigger, verified: Verified) -> Mapping[str, float]:
    """The keys by which the call is known when it is repeated, and for how many seconds each.

    Never for less than a signed time lets the very same call pass once more. Beside an id, the
    content is kept shortly: other events of this sender may have equal bodies.
    """
    if trigger.dedupe == "off":
        return {}
    given = None if trigger.dedupe is None else seconds_of(trigger.dedupe)
    by_id = _BY_ID_SECONDS if given is None else given
    by_content = _BY_CONTENT_SECONDS if given is None else given
    if verified.sender_id is not None:
        by_content = min(by_content, _BY_CONTENT_SECONDS)
    at_least = _WHILE_IT_PASSES if verified.is_timed else 0
    return {
        key: max(by_id if key.startswith(_ID) else by_content, at_least) for key in verified.keys
    }


def required(call: Call, header: str) -> str:
    """The value of a header. Raises Refused where the call has none."""
    value = call.headers.get(header.lower())
    if not value:
        raise Refused(f"the header {header} is missing")
    return value


def content_type(headers: Mapping[str, str]) -> str:
    """The media type without its parameters, in lower case; empty where none is given."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def members(body: bytes) -> Mapping[str, object]:
    """The members of a body that is a JSON object; none of any other body."""
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def known_id(given: object) -> str | None:
    """The sender's id of a call, where it gave one that can be kept."""
    return given if isinstance(given, str) and _SENDER_ID.fullmatch(given) else None


def id_key(sender_id: str) -> str:
    """A key for calls of the same id."""
    return f"{_ID}{sender_id}"


def content_key(*parts: bytes) -> str:
    """A key for calls that hold the same, part by part."""
    content = hashlib.sha256()
    for part in parts:
        content.update(len(part).to_bytes(8) + part)
    return f"content:{content.hexdigest()}"


def keys(sender_id: str | None, content: str) -> tuple[str, ...]:
    """By the id where there is one, else by the content."""
    return (content if sender_id is None else id_key(sender_id),)


def sign(secret: str, *parts: bytes, algorithm: str = "sha256") -> bytes:
    """HMAC (RFC 2104) of the parts, one after the other."""
    code = hmac.new(secret.encode(), digestmod=algorithm)
    for part in parts:
        code.update(part)
    return code.digest()


def check(expected: Iterable[str], given: Sequence[str]) -> None:
    """Compare in constant time. Raises Refused unless one that was given is one of the expected."""
    sent = [each.encode() for each in given]
    for signature in expected:
        if any(hmac.compare_digest(signature.encode(), each) for each in sent):
            return
    raise Refused("the signature does not match")


def signed_time(header: str, given: str) -> int:
    """Whole seconds of Unix time, as decimal digits. Raises Refused for anything else."""
    if not _TIME.fullmatch(given):
        raise Refused(f"{header} has no Unix time in seconds")
    return int(given)


def check_time(signed: int, at: float) -> None:
    """Raises Refused for a call whose signed time is too long ago, or too far in the future."""
    if signed < at - TOLERANCE_SECONDS:
        raise Refused(f"it was signed {at - signed:.0f} s ago")
    if signed > at + TOLERANCE_SECONDS:
        raise Refused(f"it was signed {signed - at:.0f} s in the future")
