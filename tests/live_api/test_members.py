"""Members over HTTP, and the last admin."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.live_api.conftest import ClientFor
from tests.live_api.test_problems import check

MEMBERS = "/api/v1/members"


def put(client: httpx.Client, subject: str, role: str) -> httpx.Response:
    return client.put(f"{MEMBERS}/{subject}", json={"role": role})


def roles(client: httpx.Client) -> dict[str, str]:
    return {each["subject"]: each["role"] for each in client.get(MEMBERS).json()["items"]}


def test_a_role_is_given_changed_and_taken(client: httpx.Client) -> None:
    answer = put(client, "auth0|bob", "viewer")
    assert answer.status_code == 201
    assert answer.json()["created_by"] == "ann"
    answer = put(client, "auth0|bob", "editor")
    assert (answer.status_code, answer.json()["role"]) == (200, "editor")
    assert roles(client) == {"auth0|bob": "editor"}
    assert client.delete(f"{MEMBERS}/auth0|bob").status_code == 204
    check(client.delete(f"{MEMBERS}/auth0|bob"), 404, "not_found")
    assert roles(client) == {}


def test_a_subject_may_look_like_an_address(client: httpx.Client) -> None:
    subject = "https%3A%2F%2Flogin.example.org%2Fusers%2F1"
    assert put(client, subject, "viewer").status_code == 201
    assert roles(client) == {"https://login.example.org/users/1": "viewer"}
    assert client.delete(f"{MEMBERS}/{subject}").status_code == 204


def test_pages(client: httpx.Client) -> None:
    for name in "edcba":
        put(client, f"é{name}", "viewer")
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = client.get(MEMBERS, params=query).json()
        seen += [item["subject"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == [f"é{name}" for name in "abcde"]
    for bad in ("?", "AA"):
        check(client.get(MEMBERS, params={"cursor": bad}), 422, "invalid")


def test_the_last_admin_stays(client: httpx.Client) -> None:
    put(client, "ann", "admin")
    check(put(client, "ann", "editor"), 409, "conflict")
    check(client.delete(f"{MEMBERS}/ann"), 409, "conflict")
    assert put(client, "ann", "admin").status_code == 200
    put(client, "bob", "admin")
    assert put(client, "ann", "editor").status_code == 200
    check(client.delete(f"{MEMBERS}/bob"), 409, "conflict")
    assert roles(client) == {"ann": "editor", "bob": "admin"}


def test_admins_who_remove_each_other_leave_one(client: httpx.Client) -> None:
    names = [f"admin{number}" for number in range(6)]
    for name in names:
        put(client, name, "admin")

    def leave(name: str) -> int:
        if name < "admin3":
            return client.delete(f"{MEMBERS}/{name}").status_code
        return put(client, name, "viewer").status_code

    with ThreadPoolExecutor(6) as threads:
        statuses = list(threads.map(leave, names))
    assert statuses.count(409) == 1
    assert list(roles(client).values()).count("admin") == 1


def test_nobody_gives_a_role_that_may_do_more_than_he(client_for: ClientFor) -> None:
    some = client_for(
        scopes=("members:write", "graphs:read", "runs:read", "triggers:read", "tenant:read")
    )
    assert put(some, "bob", "viewer").status_code == 201
    for role in ("operator", "editor", "admin"):
        check(put(some, "bob", role), 403, "forbidden")


def test_another_tenants_members_are_like_none(client_for: ClientFor) -> None:
    acme, globex = client_for("acme"), client_for("globex")
    put(acme, "bob", "viewer")
    check(globex.delete(f"{MEMBERS}/bob"), 404, "not_found")
    assert put(globex, "bob", "editor").status_code == 201
    assert (roles(acme), roles(globex)) == ({"bob": "viewer"}, {"bob": "editor"})


@pytest.mark.parametrize("subject", ["%00", "a%09b", "a" * 256, "%ED%A0%80\u200b", "key:abcd1234"])
def test_what_no_token_has_is_no_member(client: httpx.Client, subject: str) -> None:
    check(put(client, subject, "viewer"), 422, "invalid")
    check(client.delete(f"{MEMBERS}/{subject}"), 404, "not_found")


def test_no_path_has_a_line_break(client: httpx.Client) -> None:
    check(put(client, "a%0Ab", "viewer"), 404, "not_found")
    documented = client.get("/openapi.json").json()["paths"][MEMBERS + "/{subject}"]
    assert "404" in documented["put"]["responses"]


@pytest.mark.parametrize("body", [None, [], {}, {"role": "root"}, {"role": "admin", "more": 1}])
def test_bad_requests(client: httpx.Client, body: object) -> None:
    check(client.put(f"{MEMBERS}/bob", json=body), 422, "invalid")
