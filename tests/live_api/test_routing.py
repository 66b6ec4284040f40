"""Routes are whole before the first request."""

import gc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier

import httpx
from pydantic import TypeAdapter

from foundation.settings import Limits, Settings
from live_api.app import create_app
from tests.live_api.conftest import TokenFor, serving

APIS = 2


def adapters() -> int:
    """How many of pydantic's are in memory."""
    return sum(isinstance(each, TypeAdapter) for each in gc.get_objects())


def test_a_first_request_makes_no_route(
    settings: Settings, limits: Limits, anonymous: httpx.Client
) -> None:
    """A route that is made then keeps all other requests waiting."""
    other = create_app(settings, limits)  # the document would make them too
    paths = [path for path in other.openapi()["paths"] if path.startswith("/api/")]
    gc.collect()
    before = adapters()
    assert before > len(paths)  # they are seen at all
    for path in paths:
        assert anonymous.get(path).status_code in {401, 405, 422}, path
    assert adapters() <= before


def test_first_requests_of_two_apis_at_once(
    settings: Settings, limits: Limits, token_for: TokenFor
) -> None:
    """Threads that make pydantic's adapters at once disturb each other."""
    together = Barrier(APIS)
    headers = {"Authorization": f"Bearer {token_for()}"}
    with ExitStack() as stack:
        urls = [stack.enter_context(serving(settings, limits)) for _ in range(APIS)]

        def first(url: str) -> int:
            together.wait()
            return httpx.get(f"{url}/api/v1/audit", headers=headers, timeout=30).status_code

        with ThreadPoolExecutor(APIS) as threads:
            assert list(threads.map(first, urls)) == [200] * APIS
