"""What the API answers with about triggers, secrets, access and tenants; as in ``types``."""

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from graphwright.client.types import Role


class Trigger(TypedDict):
    """A trigger of a graph's published version."""

    trigger_id: str
    graph: str
    graph_id: str
    name: str
    type: Literal["webhook", "timer"]
    enabled: bool
    url: str | None
    scheme: str | None
    secret: str | None
    next_due_at: str | None
    config: Mapping[str, Any]
    last_fault: str | None
    last_fault_at: str | None
    created_at: str
    updated_at: str


class Fire(TypedDict):
    """A time at which a timer starts a run."""

    due_at: str
    due_at_local: str
    fire_at: str


class Backfill(TypedDict):
    """A timer's graph run for each due time of a past range."""

    backfill_id: str
    trigger_id: str
    trigger: str
    graph: str
    graph_id: str
    from_at: str
    to_at: str
    max_running: int
    status: Literal["running", "cancelling", "cancelled", "failed", "succeeded"]
    total: int
    made: int
    refused: int
    reason: str | None
    author: str
    created_at: str
    ended_at: str | None


class BackfillDetail(Backfill):
    """A backfill, with how many of its runs have which status."""

    runs: Mapping[str, int]


class Delivery(TypedDict):
    """A call of a webhook."""

    delivery_id: str
    trigger_id: str
    trigger: str | None
    graph_id: str
    graph: str | None
    received_at: str
    verdict: Literal["pending", "started", "filtered", "rejected", "refused"]
    reason: str | None
    run_id: str | None
    latency_ms: float | None
    size: int | None
    sender_id: str | None
    redelivery_of: str | None


class DeliveryDetail(Delivery):
    """A delivery with what was sent."""

    headers: Mapping[str, str]
    query: Mapping[str, str | list[str]]
    body: str | None
    body_encoding: Literal["utf-8", "base64"] | None


class Secret(TypedDict):
    """What may be known of a secret: all but its value."""

    name: str
    version: int
    created_at: str
    updated_at: str
    previous_until: str | None
    author: str


class ApiToken(TypedDict):
    """An API key: all but itself."""

    token_id: str
    name: str
    prefix: str
    role: Role
    scopes: list[str] | None
    created_at: str
    created_by: str
    last_used_at: str | None
    expires_at: str | None
    revoked_at: str | None


class NewApiToken(ApiToken):
    """A new API key with the key, which is given this once."""

    api_key: str


class Login(TypedDict):
    """A session: a token for requests and the one that renews it, each for so many seconds."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: float
    refresh_token: str
    refresh_expires_in: float
    scope: str
    tenant: str
    role: Role


class Member(TypedDict):
    """A user of an OIDC provider, and what he may do in the tenant."""

    subject: str
    role: Role
    created_at: str
    created_by: str
    updated_at: str


class Policy(TypedDict):
    """A tenant's bounds; None is no bound."""

    weight: int
    max_running: int | None
    max_queued: int | None
    max_runs_per_day: int | None
    max_graphs: int | None
    retention_days: int | None


class Usage(TypedDict):
    """What a tenant uses of its bounds."""

    queued: int
    running: int
    runs_today: int
    graphs: int


class Tenant(TypedDict):
    """A tenant."""

    tenant: str
    created_at: str
    policy: Policy
    usage: Usage


class AuditEntry(TypedDict):
    """Who did what, when and from where; ``status`` is that of the answer."""

    audit_id: str
    at: str
    subject: str
    role: Role | None
    token_id: str
    action: str
    target: Mapping[str, str]
    status: int
    address: str | None
    request_id: str
    user_agent: str | None
