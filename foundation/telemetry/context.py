"""What is being worked on here, so that each log line can say for whom it was written."""

from contextvars import ContextVar
from typing import Final

from foundation.ids import RunId, TenantId

REQUEST_ID: Final[ContextVar[str]] = ContextVar("request_id", default="")
RUN_ID: Final[ContextVar[str]] = ContextVar("run_id", default="")
TENANT: Final[ContextVar[str]] = ContextVar("tenant", default="")
TRACEPARENT: Final[ContextVar[str | None]] = ContextVar("traceparent", default=None)
"""The trace that the request being answered belongs to, as W3C's header has it."""


def working_on(tenant: TenantId, run_id: RunId) -> None:
    """From now on this task, and those that it starts, work on a run."""
    RUN_ID.set(run_id)
    TENANT.set(tenant)
