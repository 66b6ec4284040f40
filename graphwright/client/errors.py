"""The API's answers as errors: problem documents (RFC 9457), and no answer at all."""

from collections.abc import Mapping
from typing import Any, cast

import httpx

from foundation.errors import (
    Conflict,
    Fault,
    Forbidden,
    GraphwrightError,
    Invalid,
    NotFound,
    QuotaExceeded,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from graphwright.client.retrying import retry_after

_PROBLEM = "application/problem+json"
_UNREACHABLE = {502, 503, 504}


class RequestRefused(GraphwrightError):
    """The API answered with a fault that has no class of its own here, see ``code``; or what
    answered is no API."""

    code = "request_refused"


class Changed(GraphwrightError):
    """What was to be changed is not as ``if_match`` says any more: read it again."""

    code = "precondition_failed"
    status = 412


_BY_STATUS: Mapping[int, type[GraphwrightError]] = {
    error.status: error
    for error in (
        Unauthenticated, Forbidden, NotFound, Conflict, Changed, TooLarge, QuotaExceeded,
        Unavailable,
    )
}  # fmt: skip


def raise_for_fault(answer: httpx.Response) -> None:
    """Raise the error that an answer describes, if it describes one; its body must be read.

    The error's ``code`` and ``status`` are the API's, ``ids["request_id"]`` names the request in
    the API's log. Redirects are not followed: the token is for the API alone.
    """
    if answer.is_success:
        return
    if not answer.is_error:
        raise _no_api(answer)
    problem = _problem(answer)
    code = str(problem.get("code") or "")
    message = str(problem.get("detail") or problem.get("title") or answer.reason_phrase)
    hint = str(problem.get("hint") or "")
    identity = str(problem.get("request_id", ""))
    if problem.get("errors"):
        faults = [Fault(**fault) for fault in problem["errors"]]
        error: GraphwrightError = Invalid(message, faults, hint=hint, request_id=identity)
    else:
        kind = _kind(answer.status_code, code)
        error = kind(message, hint=hint, request_id=identity)
    # Of this answer, and so more precise than what the class has.
    own = {"status": answer.status_code, "code": code or error.code}
    error.__dict__.update({**own, "retry_after": retry_after(answer)})
    raise error


def json_of(answer: httpx.Response) -> Any:
    """The answer's JSON. Raises RequestRefused where it is none."""
    try:
        return answer.json()
    except ValueError:
        raise _no_api(answer) from None


def unreachable(url: str, cause: Exception | str) -> Unavailable:
    """No answer came."""
    return Unavailable(
        f"cannot reach the API at {url}: {cause}",
        hint="`graphwright up` starts a local stack; GRAPHWRIGHT_API_URL names another API.",
    )


def _no_api(answer: httpx.Response) -> RequestRefused:
    elsewhere = answer.headers.get("Location")
    return RequestRefused(
        f"{answer.url} does not answer as the API does: {answer.status_code} "
        f"{answer.reason_phrase}, {answer.headers.get('Content-Type', 'without a content type')}",
        hint=f"It points to {elsewhere}: give the API's own URL."
        if elsewhere
        else "See whether this is the API's URL.",
    )


def _kind(status: int, code: str) -> type[GraphwrightError]:
    if code == RateLimited.code:
        return RateLimited
    if status in _UNREACHABLE:
        return Unavailable
    return _BY_STATUS.get(status, RequestRefused)


def _problem(answer: httpx.Response) -> dict[str, Any]:
    if not answer.headers.get("Content-Type", "").startswith(_PROBLEM):
        return {}  # a proxy's own, say
    return cast("dict[str, Any]", json_of(answer))
