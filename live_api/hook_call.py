"""A webhook call as it is read from HTTP, and what of it may be kept."""

import asyncio
import re
import time
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request

from graph_defs.triggers import WebhookTrigger
from sensors.signatures import Call
from sensors.signatures.base import FORM, content_type

_MAX_HEADERS: Final = 16 * 2**10
_MAX_QUERY: Final = 8 * 2**10
_BODY_SECONDS: Final = 10.0
_SECRET = re.compile(
    r"authorization|cookie|signature|token|secret|password|api[-_]?key|^code$"
    r"|(?<![a-z])(key|sig|auth|authentication|pass|passwd|pwd|jwt|credential)s?(?![a-z])"
)
_HARMLESS: Final = "idempotency-key"
_NEXT_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


async def read_call(request: Request) -> Call:
    """Read all of a call. ``body`` is the raw one.

    Raises HTTPException, and TooLarge from the middleware that bounds the body.
    """
    at = time.time()
    headers, query = _head(request)
    kind = content_type(headers)
    if headers.get("content-encoding", "identity") != "identity" or not _is_accepted(kind):
        raise HTTPException(415)
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            body = await request.body()
    except TimeoutError:
        raise HTTPException(408) from None
    if body and not kind:
        raise HTTPException(415)
    return Call(headers, query, body, at)


def _head(request: Request) -> tuple[dict[str, str], str]:
    size = 0
    headers: dict[str, str] = {}
    for name, value in request.scope["headers"]:
        size += len(name) + len(value)
        known = name.decode("latin-1")
        text = value.decode("latin-1")
        headers[known] = f"{headers[known]}, {text}" if known in headers else text
    query = request.scope["query_string"]
    if size > _MAX_HEADERS:
        raise HTTPException(431)
    if len(query) > _MAX_QUERY:
        raise HTTPException(414)
    return headers, query.decode("latin-1")


def _is_accepted(kind: str) -> bool:
    return (
        kind in {"", "application/json", FORM} or kind.startswith("text/") or kind.endswith("+json")
    )


def kept_headers(
    trigger: WebhookTrigger, call: Call, secrets: Collection[str]
) -> Mapping[str, str]:
    """The headers without those that prove something, look as if they did, or are a secret of the
    trigger's. The one that holds the sender's id is no secret.
    """
    proof, sender_id = (trigger.header or "").lower(), (trigger.id_header or "").lower()
    return {
        name: value
        for name, value in call.headers.items()
        if name != proof
        and (name == sender_id or not _looks_secret(name))
        and not _is_secret((value, *value.split(", ")), secrets)
    }


def kept_query(call: Call, secrets: Collection[str]) -> Mapping[str, str | list[str]]:
    """The query without what looks like a secret by its name, or is one of the trigger's; a list
    where a name is repeated.
    """
    if not call.query:
        return {}
    return {
        name: values if len(values) > 1 else values[0]
        for name, values in parse_qs(call.query, keep_blank_values=True).items()
        if not _looks_secret(name) and not _is_secret((name, *values), secrets)
    }


def _looks_secret(name: str) -> bool:
    """By its words: ``accessKey`` and ``access_key`` do, ``keyboard`` does not."""
    words = _NEXT_WORD.sub("-", name).lower()
    return words != _HARMLESS and _SECRET.search(words) is not None


def _is_secret(values: Collection[str], secrets: Collection[str]) -> bool:
    return not set(secrets).isdisjoint(values)
