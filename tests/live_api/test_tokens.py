"""API keys over HTTP: made, listed and revoked."""

import json
from typing import Any

import httpx
import pytest

from foundation.ids import new_id
from tests.live_api.conftest import ClientFor
from tests.live_api.test_problems import check

TOKENS = "/api/v1/tokens"


def make(client: httpx.Client, name: str = "ci", **more: object) -> dict[str, Any]:
    answer = client.post(TOKENS, json={"name": name, "role": "viewer", **more})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"{TOKENS}/{answer.json()['token_id']}"
    return answer.json()


def test_a_key_is_shown_once(client: httpx.Client) -> None:
    made = make(client, scopes=["runs:read", "graphs:read"])
    key = made.pop("api_key")
    assert key.startswith(f"gw_{made['prefix']}_")
    assert made["scopes"] == ["graphs:read", "runs:read"]
    assert (made["name"], made["role"], made["created_by"]) == ("ci", "viewer", "ann")
    assert made["last_used_at"] is made["expires_at"] is made["revoked_at"] is None
    assert client.get(f"{TOKENS}/{made['token_id']}").json() == made
    assert client.get(TOKENS).json() == {"items": [made], "next_cursor": None}
    secret = key.split("_", 2)[2]
    for path in (TOKENS, f"{TOKENS}/{made['token_id']}", "/api/v1/audit"):
        assert secret not in client.get(path).text


def test_pages_newest_first(client: httpx.Client) -> None:
    names = [make(client, str(number))["name"] for number in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = client.get(TOKENS, params=query).json()
        seen += [item["name"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == names[::-1]
    check(client.get(TOKENS, params={"cursor": "?"}), 422, "invalid")


def test_revoking_is_for_good_and_may_be_repeated(client: httpx.Client) -> None:
    path = f"{TOKENS}/{make(client)['token_id']}"
    assert client.delete(path).status_code == 204
    revoked_at = client.get(path).json()["revoked_at"]
    assert client.delete(path).status_code == 204
    assert client.get(path).json()["revoked_at"] == revoked_at is not None


def test_another_tenants_keys_are_like_none(client_for: ClientFor) -> None:
    acme, globex = client_for("acme"), client_for("globex")
    path = f"{TOKENS}/{make(acme)['token_id']}"
    for strange in (path, f"{TOKENS}/{new_id()}", f"{TOKENS}/x", f"{TOKENS}/%00"):
        check(globex.get(strange), 404, "not_found")
        check(globex.delete(strange), 404, "not_found")
    assert globex.get(TOKENS).json()["items"] == []
    assert acme.get(path).json()["revoked_at"] is None


def test_nobody_makes_a_key_with_more_than_he_has(client_for: ClientFor) -> None:
    some = client_for(scopes=("tokens:write", "graphs:read", "runs:read"))
    for body in (
        {"role": "viewer"},
        {"role": "admin"},
        {"role": "admin", "scopes": ["graphs:read", "tokens:read"]},
    ):
        answer = some.post(TOKENS, json={"name": "ci", **body})
        check(answer, 403, "forbidden")
    make(some, role="admin", scopes=["graphs:read", "tokens:write"])


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"role": "viewer"}, "/name"),
        ({"name": "", "role": "viewer"}, "/name"),
        ({"name": "a" * 201, "role": "viewer"}, "/name"),
        ({"name": "a\0", "role": "viewer"}, "/name"),
        ({"name": "\ud800", "role": "viewer"}, "/name"),
        ({"name": "a"}, "/role"),
        ({"name": "a", "role": "root"}, "/role"),
        ({"name": "a", "role": "viewer", "scopes": ["all"]}, "/scopes/0"),
        ({"name": "a", "role": "viewer", "scopes": ["runs:write"]}, "/scopes"),
        ({"name": "a", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"name": "a", "role": "viewer", "expires_at": "2120-01-01T00:00:00"}, "/expires_at"),
        ({"name": "a", "role": "viewer", "expires_at": "soon"}, "/expires_at"),
        *(
            ({"name": "a", "role": "viewer", "expires_at": never}, "/expires_at")
            for never in ("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59Z")
        ),
        ({"name": "a", "role": "viewer", "more": 1}, "/more"),
    ],
)
def test_bad_requests(client: httpx.Client, body: Any, pointer: str) -> None:
    # Escaped, so that a lone surrogate gets there.
    answer = client.post(
        TOKENS, content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    check(answer, 422, "invalid")
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
