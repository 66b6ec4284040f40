"""Plain reads go past FastAPI's solving, and nobody can tell from the answer."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, Header, Path, Query, Request, Response
from fastapi.routing import APIRoute

from foundation.ids import new_id
from foundation.settings import Limits, Settings
from live_api.app import create_app
from live_api.dependencies import RunPath, Services, require, require_stream, services
from live_api.identity import Principal
from live_api.openapi import operation_id
from live_api.quick_route import plan
from tests.live_api.conftest import ClientFor
from tests.live_api.test_graphs import publish

Parts = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("runs:read"))]
Follower = Annotated[Principal, Depends(require_stream("runs:read"))]

OF_THIS_ANSWER = {"x-request-id", "ratelimit", "ratelimit-policy"}


async def known(
    request: Request,
    run_id: RunPath,
    parts: Parts,
    caller: Reader,
    if_none_match: Annotated[str | None, Header(max_length=9)] = None,
    since: Annotated[str, Header(alias="Last-Event-ID")] = "",
    limit: Annotated[int, Query(ge=1)] = 50,
    after: Annotated[str | None, Query(max_length=3)] = None,
    label: Annotated[Sequence[str], Query()] = (),
    other: Annotated[str, Query(alias="else")] = "",
) -> Response:
    raise NotImplementedError


async def not_an_answer(run_id: RunPath) -> str:
    raise NotImplementedError


async def other_dependency(caller: Follower) -> Response:
    raise NotImplementedError


async def number_of_the_path(version: Annotated[int, Path()]) -> Response:
    raise NotImplementedError


async def bounded_path(name: Annotated[str, Path(max_length=9)]) -> Response:
    raise NotImplementedError


async def without_default(limit: Annotated[int, Query()]) -> Response:
    raise NotImplementedError


async def default_that_can_change(
    graph: Annotated[list[str], Query()] = [],  # noqa: B006
) -> Response:
    raise NotImplementedError


async def body(given: dict[str, str]) -> Response:
    raise NotImplementedError


def test_what_a_plain_request_leaves_open_is_known() -> None:
    call = plan(known)
    assert call is not None
    assert call.of_path == ["run_id"]
    assert set(call.dependencies) == {"request", "parts", "caller"}
    assert call.headers == {b"if-none-match", b"last-event-id"}


@pytest.mark.parametrize(
    ("query", "given"),
    [
        ("limit=10", {"limit": 10}),
        ("limit=%31&after=%C3%A9", {"limit": 1, "after": "\N{LATIN SMALL LETTER E WITH ACUTE}"}),
        ("after=", {"after": ""}),
        ("limit=0", None),
        ("limit=", None),
        ("limit=ten", None),
        ("after=long", None),
        ("limit=1&limit=2", None),
        ("label=a", None),
        ("else=a", None),
        ("other=a", None),
        ("limit=1&unheard-of=1", None),
    ],
)
def test_a_query_is_plain_if_all_of_it_is_known_and_good(
    query: str, given: dict[str, Any] | None
) -> None:
    call = plan(known)
    assert call is not None
    assert call.of_query(query.encode()) == given


@pytest.mark.parametrize(
    "endpoint",
    [
        not_an_answer, other_dependency, number_of_the_path, bounded_path, without_default,
        default_that_can_change, body,
    ],
)  # fmt: skip
def test_what_has_to_be_checked_is_left_to_fastapi(endpoint: Callable[..., Any]) -> None:
    assert plan(endpoint) is None


def test_the_reads_that_are_asked_most_are_quick(settings: Settings, limits: Limits) -> None:
    quick = {
        operation_id(route)
        for route in create_app(settings, limits).routes
        if isinstance(route, APIRoute) and plan(route.endpoint)
    }
    assert {"runs.read", "runs.list", "runs.read_output", "graphs.read", "graphs.list"} <= quick


def answer(client: httpx.Client, path: str, query: str) -> tuple[int, str, dict[str, str]]:
    """An answer without what each has of its own."""
    got = client.get(path + query)
    headers = {name: value for name, value in got.headers.items() if name not in OF_THIS_ANSWER}
    text = got.text
    if got.is_error:
        text = text.replace(got.json()["request_id"], "")
    return got.status_code, text, headers | {"date": ""}


def test_either_way_gives_the_same_answer(
    client: httpx.Client, anonymous: httpx.Client, client_for: ClientFor
) -> None:
    graph = publish(client, "quick").json()["graph_id"]
    run = client.post(f"/api/v1/graphs/{graph}/runs", json={}).json()["run_id"]
    found = {
        f"/api/v1/runs/{run}": 200,
        "/api/v1/runs": 200,
        f"/api/v1/runs/{run}/nodes/a/output": 404,
        f"/api/v1/graphs/{graph}": 200,
        "/api/v1/graphs": 200,
        f"/api/v1/runs/{new_id()}": 404,
        "/api/v1/runs/no%20id": 404,
        "/api/v1/graphs/nobody": 404,
    }
    strangers = client_for("globex")
    without = client_for(scopes=())
    for path, status in found.items():
        plain = answer(client, path, "")
        assert plain == answer(client, path, "?unheard-of=1"), path
        assert plain[0] == status, path
        for query in ("limit=1", "limit=0", "limit=x", "cursor=x", "cursor=", "redirect=true"):
            given = answer(client, path, f"?{query}")
            assert given == answer(client, path, f"?{query}&unheard-of=1"), (path, query)
        for other, refused in ((anonymous, 401), (without, 403), (strangers, None)):
            plain = answer(other, path, "")
            assert plain == answer(other, path, "?unheard-of=1"), path
            assert refused in (None, plain[0]), path


def test_a_header_that_is_taken_is_checked(client: httpx.Client) -> None:
    path = f"/api/v1/runs/{new_id()}"
    assert client.get(path, headers={"If-None-Match": "x" * 2_000}).status_code == 422
    read = f"/api/v1/graphs/{publish(client, 'tagged').json()['graph_id']}"
    tag = client.get(read).headers["etag"]
    assert client.get(read, headers={"if-none-match": tag}).status_code == 304
