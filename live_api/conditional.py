"""ETags and conditional requests, by RFC 9110 sections 8.8.3 and 13.

An ETag is made of what tells one state of a thing from all its others, never of the whole answer,
so that a change can be checked against it inside of its own transaction.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import Header, Response, status
from pydantic import BaseModel

from foundation.errors import GraphwrightError
from live_api.answers import json_answer

IfMatch = Annotated[
    str | None,
    Header(
        max_length=1_024,
        description="ETags, or `*` for any: the change is made only if one of them is still that "
        "of what is changed, else 412.",
    ),
]
IfNoneMatch = Annotated[
    str | None,
    Header(
        max_length=1_024,
        description="ETags: the answer is 304, without a body, if one of them is still good.",
    ),
]
IfNone = Annotated[
    str | None,
    Header(
        alias="If-None-Match",
        max_length=1_024,
        description="`*`: only if there is none yet, else 412.",
    ),
]

_ETAG_HEADER: Final = {
    "ETag": {
        "description": "Of what it is now, for `If-Match` and `If-None-Match`.",
        "schema": {"type": "string"},
    }
}
TAGGED: Final[dict[str, Any]] = {"headers": _ETAG_HEADER}
"""Of an answer's documentation: it has an ETag."""
READ_TAGGED: Final[dict[int | str, dict[str, Any]]] = {
    200: TAGGED,
    304: {"description": "It is as `If-None-Match` knows it.", **TAGGED},
}
"""The documented answers of a route that gives :func:`not_modified`."""

_TAG = re.compile(r'"([^"]*)"')


class PreconditionFailed(GraphwrightError):
    """What is to be changed is not, or no longer, as the request expects."""

    code = "precondition_failed"
    status = 412


def etag(*parts: object) -> str:
    """The ETag of the state that these parts tell from all others of the same thing."""
    text = "\0".join(map(str, parts))
    return f'"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"'


def check(if_match: str | None, if_none_match: str | None, current: str | None) -> None:
    """Raise PreconditionFailed unless a change may be made to what has the ETag ``current``, None
    where there is nothing yet."""
    if if_match is not None and not _matches(if_match, current):
        raise PreconditionFailed(
            "it was changed meanwhile" if current else "there is none",
            hint="Read it again, and send its ETag as If-Match." if current else "",
        )
    if if_none_match is not None and _matches(if_none_match, current):
        raise PreconditionFailed("there is one already", hint="Change that with If-Match.")


def not_modified(if_none_match: str | None, current: str) -> Response | None:
    """The answer to who knows the state already, else None."""
    if if_none_match is None or not _matches(if_none_match, current):
        return None
    return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=tag_headers(current))


def tagged(answer: BaseModel, current: str, stored: Mapping[str, str] | None = None) -> Response:
    """The answer to who does not know the state yet; ``stored`` as in ``json_answer``."""
    return json_answer(answer, tag_headers(current), stored=stored)


def tag_headers(current: str) -> dict[str, str]:
    """The headers of an answer with this ETag: keep it, and ask each time whether it is good."""
    return {"ETag": current, "Cache-Control": "private, no-cache"}


def _matches(given: str, current: str | None) -> bool:
    """Whether one of the ETags given is the current one. A proxy that compresses makes an ETag weak
    by ``W/``; ours says the same with it."""
    if current is None:
        return False
    return given.strip() == "*" or current.strip('"') in _TAG.findall(given)
