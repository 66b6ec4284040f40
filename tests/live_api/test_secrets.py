"""Secrets over HTTP: they go in, and nothing gives them back."""

import logging
from datetime import datetime
from typing import Any

import httpx
import psycopg
import pytest

from foundation.settings import Limits, Settings
from tests.live_api.conftest import ClientFor, TokenFor, serving
from tests.live_api.test_problems import check

HUSH = "hush-hush-5c1e"
PATH = "/api/v1/secrets"


def put(client: httpx.Client, name: str, value: str = HUSH, **more: Any) -> httpx.Response:
    return client.put(f"{PATH}/{name}", json={"value": value, **more})


def test_a_secret_is_set_read_changed_and_removed(client: httpx.Client) -> None:
    made = put(client, "api_key")
    assert made.status_code == 201
    assert made.headers["location"] == f"{PATH}/api_key"
    secret = made.json()
    assert secret.keys() == {
        "name", "version", "created_at", "updated_at", "previous_until", "author",
    }  # fmt: skip
    assert (secret["name"], secret["version"], secret["author"]) == ("api_key", 1, "ann")
    assert client.get(f"{PATH}/api_key").json() == secret
    again = put(client, "api_key")
    assert (again.status_code, again.json()) == (200, secret)
    changed = put(client, "api_key", "other", keep_previous_seconds=60)
    assert changed.status_code == 200
    assert "location" not in changed.headers
    until, updated = (
        datetime.fromisoformat(changed.json()[key]) for key in ("previous_until", "updated_at")
    )
    assert (until - updated).total_seconds() == 60
    assert client.get(PATH).json() == {"items": [changed.json()], "next_cursor": None}
    gone = client.delete(f"{PATH}/api_key")
    assert (gone.status_code, gone.content) == (204, b"")
    for answer in (client.get(f"{PATH}/api_key"), client.delete(f"{PATH}/api_key")):
        assert check(answer, 404, "not_found")["secret"] == "api_key"


def test_no_answer_holds_a_value(client: httpx.Client) -> None:
    answers = [
        put(client, "key"),
        put(client, "key"),
        put(client, "key", f"{HUSH}2", keep_previous_seconds=60),
        client.get(f"{PATH}/key"),
        client.get(PATH),
    ]
    assert [answer.status_code for answer in answers] == [201, 200, 200, 200, 200]
    assert not any("hush" in answer.text for answer in answers)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"value": [HUSH]}, "/value"),
        ({"value": {"value": HUSH}}, "/value"),
        ({"value": ""}, "/value"),
        ({"value": HUSH, "keep_previous_seconds": HUSH}, "/keep_previous_seconds"),
        ({"value": HUSH, "keep_previous_seconds": -1}, "/keep_previous_seconds"),
        ({"value": HUSH, "keep_previous_seconds": 1e99}, "/keep_previous_seconds"),
        ({"value": HUSH, "more": HUSH}, "/more"),
        ({"values": HUSH}, "/value"),
        (HUSH, ""),
        ([HUSH], ""),
    ],
)
def test_a_bad_request_is_not_repeated(
    client: httpx.Client, caplog: pytest.LogCaptureFixture, body: object, pointer: str
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = client.put(f"{PATH}/key", json=body)
    problem: Any = check(answer, 422, "invalid")
    assert pointer in [fault["pointer"] for fault in problem["errors"]]
    assert "hush" not in answer.text
    assert "hush" not in caplog.text
    assert client.get(PATH).json()["items"] == []


@pytest.mark.parametrize(
    "content",
    [
        b'{"value": "hush-hush',
        b'{"value": hush-hush}',
        b'{"value": "hush-hush\\ud800"}',
        b'{"value": "hush-hush\xff"}',
        b"hush-hush",
        b"value=hush-hush",
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "text/plain", None])
def test_a_body_that_cannot_be_read_is_not_repeated(
    client: httpx.Client, caplog: pytest.LogCaptureFixture, content: bytes, kind: str | None
) -> None:
    caplog.set_level(logging.DEBUG)
    headers = {} if kind is None else {"Content-Type": kind}
    answer = client.put(f"{PATH}/key", content=content, headers=headers)
    assert answer.status_code in (400, 422)
    assert "hush" not in answer.text
    assert "hush" not in caplog.text
    assert client.get(PATH).json()["items"] == []


def test_a_long_value(client: httpx.Client) -> None:
    assert put(client, "key", "☃" * 21_845).status_code == 201
    answer = put(client, "key", "hush" * 16_385)
    check(answer, 413, "too_large")
    assert "hush" not in answer.text


def test_a_failure_of_ours_is_logged_without_the_value(
    settings: Settings, limits: Limits, token_for: TokenFor, caplog: pytest.LogCaptureFixture
) -> None:
    with psycopg.connect(settings.database_url) as connection:
        connection.execute("ALTER TABLE graphwright.secrets ADD CHECK (version < 0)")
    headers = {"Authorization": f"Bearer {token_for()}"}
    with serving(settings, limits) as url, httpx.Client(base_url=url, headers=headers) as client:
        answer = put(client, "key")
    check(answer, 500, "internal")
    told = answer.text + caplog.text
    assert "CheckViolation" in told
    assert HUSH not in told
    assert HUSH.encode().hex() not in told


@pytest.mark.parametrize("name", ["1key", "a-b", "a.b", "in", "x" * 64, "a%20b", "%C3%BC", "a%00"])
def test_bad_names(client: httpx.Client, name: str) -> None:
    answer = put(client, name)
    problem: Any = check(answer, 422, "invalid")
    assert [fault["pointer"] for fault in problem["errors"]] == ["/name"]
    check(client.get(f"{PATH}/{name}"), 404, "not_found")
    check(client.delete(f"{PATH}/{name}"), 404, "not_found")


def test_tenants_see_their_own(client_for: ClientFor) -> None:
    acme, other = client_for("acme"), client_for("other")
    put(acme, "key")
    assert other.get(PATH).json()["items"] == []
    for answer in (other.get(f"{PATH}/key"), other.delete(f"{PATH}/key")):
        assert check(answer, 404, "not_found") == {
            **check(other.get(f"{PATH}/key"), 404, "not_found"),
            "request_id": answer.json()["request_id"],
        }
    assert put(other, "key", "theirs").status_code == 201
    other.delete(f"{PATH}/key")
    assert acme.get(f"{PATH}/key").json()["version"] == 1


def test_scopes(client_for: ClientFor, anonymous: httpx.Client) -> None:
    reader = client_for("acme", ("secrets:read",))
    writer = client_for("acme", ("secrets:write",))
    without = client_for("acme", ("graphs:read", "graphs:write", "runs:read", "runs:write"))
    assert put(writer, "key").status_code == 201
    assert reader.get(f"{PATH}/key").status_code == reader.get(PATH).status_code == 200
    for client in (reader, without):
        check(put(client, "key"), 403, "forbidden")
        check(client.delete(f"{PATH}/key"), 403, "forbidden")
    for client in (writer, without):
        check(client.get(f"{PATH}/key"), 403, "forbidden")
        check(client.get(PATH), 403, "forbidden")
    check(put(anonymous, "key"), 401, "unauthenticated")
    assert writer.delete(f"{PATH}/key").status_code == 204


def test_pages(client: httpx.Client) -> None:
    for name in ("c", "a", "b"):
        put(client, name)
    first = client.get(PATH, params={"limit": 2}).json()
    assert [secret["name"] for secret in first["items"]] == ["a", "b"]
    rest = client.get(PATH, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [secret["name"] for secret in rest["items"]] == ["c"]
    assert rest["next_cursor"] is None
    check(client.get(PATH, params={"cursor": "§"}), 422, "invalid")
    check(client.get(PATH, params={"limit": 201}), 422, "invalid")
