"""One root for every error of ours.

An error has a stable ``code`` (users' scripts match on it), an HTTP-like ``status`` that the API
maps to RFC 9457 problem+json in one place, ``ids`` that say what it is about, and a ``hint`` that
says what to do next. ``retry_after`` are the seconds until trying again may help, where they are
known. Errors survive pickling, since they cross processes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a document or a request body.

    ``pointer`` is an RFC 6901 JSON Pointer to the offending value (``""`` is the whole document).
    """

    pointer: str
    code: str
    message: str
    hint: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


class GraphwrightError(Exception):
    """Root of every error that Graphwright raises on purpose."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(
        self, message: str, *, hint: str = "", retry_after: int | None = None, **ids: str
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after = retry_after
        self.ids: Mapping[str, str] = ids

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__.copy()))


def _rebuild(
    kind: type[GraphwrightError], args: tuple[Any, ...], state: dict[str, Any]
) -> GraphwrightError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class NotFound(GraphwrightError):
    """There is no such thing for this tenant; another tenant's answers the same."""

    code = "not_found"
    status = 404


class Conflict(GraphwrightError):
    """The request clashes with the present state."""

    code = "conflict"
    status = 409


class Invalid(GraphwrightError):
    """A document or request body has faults; ``faults`` lists every one that was found."""

    code = "invalid"
    status = 422

    def __init__(
        self, message: str, faults: Sequence[Fault], *, hint: str = "", **ids: str
    ) -> None:
        super().__init__(message, hint=hint, retry_after=None, **ids)
        self.faults = tuple(faults)

    def __str__(self) -> str:
        """For logs and the Dagster UI: the message, and after it every fault."""
        told = "; ".join(f"{fault.pointer or '/'}: {fault.message}" for fault in self.faults)
        return f"{self.message} {told}".strip()


class Unauthenticated(GraphwrightError):
    """No token, or one that cannot be trusted."""

    code = "unauthenticated"
    status = 401


class Forbidden(GraphwrightError):
    """The token is good, but its scopes do not allow this."""

    code = "forbidden"
    status = 403


class TooLarge(GraphwrightError):
    """The input is over a limit of the installation."""

    code = "too_large"
    status = 413


class QuotaExceeded(GraphwrightError):
    """The tenant has as much of something as it may have; ``quota`` names which bound."""

    code = "quota_exceeded"
    status = 429


class RateLimited(GraphwrightError):
    """Too many requests for now; ``limit`` names which bound."""

    code = "rate_limited"
    status = 429


class Unavailable(GraphwrightError):
    """Something that we depend on does not answer; try again."""

    code = "unavailable"
    status = 503
