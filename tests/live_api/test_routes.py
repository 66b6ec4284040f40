"""What holds for every route of the API, by its OpenAPI document."""

import re
from collections.abc import Iterator

import httpx
import pytest

from foundation.ids import new_id
from tests.live_api.conftest import ClientFor
from tests.live_api.test_problems import check

_LOGIN = "/api/v1/auth/"
"""Where one gets a token."""


def routes(client: httpx.Client) -> Iterator[tuple[str, str]]:
    """Each method and path, with an id of nothing in place of each parameter."""
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        if path.startswith("/api/v1/") and not path.startswith(_LOGIN):
            for method in operations:
                yield method.upper(), re.sub(r"\{[a-z_]+\}", new_id(), path)


@pytest.mark.parametrize("token", [None, "a.b.c"])
def test_no_route_answers_without_a_good_token(anonymous: httpx.Client, token: str | None) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    found = list(routes(anonymous))
    assert len(found) > 30
    for method, path in found:
        answer = anonymous.request(method, path, headers=headers)
        check(answer, 401, "unauthenticated")


def test_every_route_asks_for_a_scope(client_for: ClientFor) -> None:
    client = client_for(scopes=())
    for method, path in routes(client):
        check(client.request(method, path), 403, "forbidden")
