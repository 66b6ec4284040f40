"""The OpenAPI document, and the page that is made of it."""

import re
from typing import Any

import httpx
import pytest

from foundation.settings import Limits, Settings
from live_api.app import create_app

VERB = re.compile(r"[a-z]+(-[a-z]+)*\.[a-z]+(_[a-z]+)*")

STABLE = {
    "audit.list", "auth.login", "auth.logout", "auth.refresh", "backfills.cancel",
    "backfills.create", "backfills.list", "backfills.read", "deliveries.list", "deliveries.read",
    "deliveries.redeliver", "graphs.delete", "graphs.delete_draft", "graphs.diff_versions",
    "graphs.follow", "graphs.list", "graphs.list_versions", "graphs.pause", "graphs.publish",
    "graphs.publish_draft", "graphs.put_draft", "graphs.read", "graphs.read_draft",
    "graphs.read_version", "graphs.resume", "graphs.roll_back", "graphs.validate", "health.healthz",
    "health.readyz", "members.delete", "members.list", "members.put", "node-types.list",
    "node-types.read", "notices.list", "runs.cancel", "runs.create_stream_token", "runs.follow",
    "runs.list", "runs.list_watchers", "runs.pause", "runs.read", "runs.read_events",
    "runs.read_output", "runs.rerun", "runs.resume", "runs.start", "runs.start_batch",
    "secrets.delete", "secrets.list", "secrets.put", "secrets.read", "tenants.list", "tenants.read",
    "tokens.create", "tokens.list", "tokens.read", "tokens.revoke", "triggers.disable",
    "triggers.enable", "triggers.fire", "triggers.list", "triggers.preview", "triggers.read",
}  # fmt: skip
"""Clients are made of these, and the audit log has them: whoever renames a function breaks both."""


@pytest.fixture
def document(settings: Settings, limits: Limits) -> dict[str, Any]:
    return create_app(settings, limits).openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_operation_ids_are_unique_and_stay(document: dict[str, Any]) -> None:
    found = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(found)) == len(found)
    assert [name for name in found if not VERB.fullmatch(name)] == []
    assert STABLE - set(found) == set()


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"] if tag.get("description")}
    for name, operation in operations(document):
        assert operation.get("summary"), name
        assert operation.get("description"), name
        assert set(operation["tags"]) <= tags, name
        if "security" in operation:
            assert {"401", "403", "429", "503"} <= set(operation["responses"]), name
        if "requestBody" in operation:
            assert {"413", "422"} <= set(operation["responses"]), name


def test_every_fault_is_a_problem_document(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status >= "400":
                assert list(answer["content"]) == ["application/problem+json"], (name, status)
            if status == "429":
                assert "Retry-After" in answer["headers"], name


def test_only_these_ask_for_no_token(document: dict[str, Any]) -> None:
    open_to_all = {name for name, operation in operations(document) if "security" not in operation}
    assert open_to_all == {
        "GET /healthz", "GET /readyz", "POST /api/v1/auth/login", "POST /api/v1/auth/refresh",
        "POST /api/v1/auth/logout",
    }  # fmt: skip


def test_the_page_needs_nothing_else(anonymous: httpx.Client) -> None:
    """No script, and nothing from elsewhere: its policy forbids both, and it has neither."""
    page = anonymous.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert re.fullmatch(
        r"default-src 'none'; frame-ancestors 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='",
        page.headers["content-security-policy"],
    )
    assert "<script" not in page.text
    assert set(re.findall(r'(?:src|href)="([^"]*)"', page.text)) == {"/openapi.json"}
    for path in anonymous.get("/openapi.json").json()["paths"]:
        assert f"<code>{path}</code>" in page.text
    assert page.headers["cache-control"] == "public, max-age=300"
