"""Every route of the application: what it has to check, and how it is asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from live_api.identity import Scope

Body = Callable[[Mapping[str, str]], Any]


@dataclass(frozen=True)
class Row:
    """What a route has to check, and how it is to be asked."""

    scope: Scope | None
    """None: it is open to all."""
    body: Body | None = None
    query: str = ""
    statuses: frozenset[int] = frozenset({404})
    """Of the answer where all ids are another tenant's."""


def own(scope: Scope, status: int, body: Body | None = None) -> Row:
    """A route that names nothing of a tenant's: it answers from the caller's own."""
    return Row(scope, body, statuses=frozenset({status}))


def document(name: str, value: str = "") -> dict[str, Any]:
    return {
        "apiVersion": "graphwright/v1",
        "kind": "Graph",
        "metadata": {"name": name, "labels": {"whose": value or "ours"}},
        "nodes": {"a": {"type": "data.transform", "with": {"value": value}}},
        "triggers": {
            "hook": {"type": "webhook", "scheme": "none"},
            "timer": {"type": "timer", "every": "1h"},
        },
    }


def _document(ids: Mapping[str, str]) -> Any:
    return document(ids["name_of_graph"])


def _nothing(_: Mapping[str, str]) -> Any:
    return {}


ROUTES: dict[str, Row] = {
    "graphs.publish": own("graphs:write", 201, _document),
    "graphs.validate": own("graphs:read", 200, _document),
    "graphs.list": own("graphs:read", 200),
    "graphs.read": Row("graphs:read"),
    "graphs.delete": Row("graphs:write"),
    "graphs.pause": Row("runs:write"),
    "graphs.resume": Row("runs:write"),
    "graphs.list_versions": Row("graphs:read"),
    "graphs.read_version": Row("graphs:read"),
    "graphs.roll_back": Row("graphs:write", lambda _: {"version": 1}),
    "graphs.diff_versions": Row("graphs:read", query="?from=1&to=draft"),
    "graphs.put_draft": Row("graphs:write", _document),
    "graphs.read_draft": Row("graphs:read"),
    "graphs.delete_draft": Row("graphs:write"),
    "graphs.publish_draft": Row("graphs:write"),
    "graphs.follow": Row("runs:read"),
    "node-types.list": own("graphs:read", 200),
    "node-types.read": own("graphs:read", 200),
    "runs.start": Row("runs:write", _nothing),
    "runs.start_batch": Row(
        "runs:write",
        lambda ids: {"runs": [{"graph": ids["graph"]}]},
        statuses=frozenset({404, 422}),
    ),
    "runs.list": own("runs:read", 200),
    "runs.read": Row("runs:read"),
    "runs.read_output": Row("runs:read"),
    "runs.cancel": Row("runs:write"),
    "runs.pause": Row("runs:write"),
    "runs.resume": Row("runs:write"),
    "runs.rerun": Row("runs:write", _nothing),
    "runs.read_events": Row("runs:read"),
    "runs.list_watchers": Row("runs:read"),
    "runs.follow": own("runs:read", 200),
    "runs.create_stream_token": Row("runs:read"),
    "triggers.list": Row("triggers:read"),
    "triggers.read": Row("triggers:read"),
    "triggers.enable": Row("triggers:write"),
    "triggers.disable": Row("triggers:write"),
    "triggers.fire": Row("triggers:write", _nothing),
    "triggers.preview": Row("triggers:read"),
    "deliveries.list": own("triggers:read", 200),
    "deliveries.read": Row("triggers:read"),
    "deliveries.redeliver": Row("triggers:write"),
    "backfills.create": Row(
        "triggers:write",
        lambda _: {"from": "2026-01-31T00:00:00Z", "to": "2026-02-01T00:00:00Z"},
    ),
    "backfills.list": own("triggers:read", 200),
    "backfills.read": Row("triggers:read"),
    "backfills.cancel": Row("triggers:write"),
    "notices.list": Row("triggers:read"),
    "secrets.put": own("secrets:write", 201, lambda _: {"value": "ours-to-set"}),
    "secrets.read": Row("secrets:read"),
    "secrets.delete": Row("secrets:write"),
    "secrets.list": own("secrets:read", 200),
    "tokens.create": own("tokens:write", 201, lambda _: {"name": "ours", "role": "viewer"}),
    "tokens.list": own("tokens:read", 200),
    "tokens.read": Row("tokens:read"),
    "tokens.revoke": Row("tokens:write"),
    "members.list": own("members:read", 200),
    "members.put": own("members:write", 201, lambda _: {"role": "viewer"}),
    "members.delete": Row("members:write"),
    "tenants.list": own("tenant:read", 200),
    "tenants.read": Row("tenant:read"),
    "audit.list": own("audit:read", 200),
    "auth.login": Row(None, lambda _: {"api_key": "gw_x"}),
    "auth.refresh": Row(None, lambda _: {"refresh_token": "x"}),
    "auth.logout": Row(None, lambda _: {"refresh_token": "x"}),
    "health.healthz": Row(None),
    "health.readyz": Row(None),
}

SOCKETS = {"/api/v1/runs/{run_id}/ws", "/api/v1/ws"}

LAST = ("secrets.put", "members.put")
"""They make what those of the same path read and remove, so they come after these."""
