"""How the client proves who it is: tokens that end, API keys, sessions that are renewed."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import anyio
import jwt
import pytest

from foundation.errors import Unauthenticated
from graphwright.client import AsyncClient, Client
from tests.graphwright.scripted_api import QUICK, RUN, Reply, Request, api, problem

KEY = "k" * 32


class Sessions:
    """The API's part of API keys: short tokens, and refresh tokens that are good for one use."""

    def __init__(self, expires_in: float) -> None:
        self.expires_in = expires_in
        self.made = 0
        self.good: set[str] = set()
        self.refresh = ""
        self.reused = False
        self.asked: list[str] = []
        self.lock = threading.Lock()

    def __call__(self, request: Request) -> Reply:
        with self.lock:
            what = request.path.rpartition("/")[2]
            if what in {"login", "refresh"}:
                self.asked.append(what)
                given = json.loads(request.body)
                if what == "refresh" and given["refresh_token"] != self.refresh:
                    self.reused = True
                    return problem(401, "token_reused")
                return self.begin()
            token = request.headers["Authorization"].removeprefix("Bearer ")
            return Reply(200, RUN) if token in self.good else problem(401, "unauthenticated")

    def begin(self) -> Reply:
        self.made += 1
        self.refresh, token = f"refresh-{self.made}", f"access-{self.made}"
        self.good = {token}
        session = {
            "access_token": token,
            "refresh_token": self.refresh,
            "expires_in": self.expires_in,
        }
        return Reply(200, session)


def test_an_api_key_logs_in_and_its_session_is_kept_going() -> None:
    sessions = Sessions(expires_in=900)
    with api(sessions) as told, Client(told.url, api_key="gw_x", retry=QUICK) as client:
        for _ in range(3):
            client.runs.get("r")
        assert sessions.asked == ["login"]
        sessions.good.clear()  # as when the signing key was changed
        client.runs.get("r")
        assert sessions.asked == ["login", "refresh"]
        sessions.good.clear()
        sessions.refresh = "another"
        client.runs.get("r")
        assert sessions.asked == ["login", "refresh", "refresh", "login"]


def test_a_token_is_renewed_before_it_ends() -> None:
    sessions = Sessions(expires_in=0)
    with api(sessions) as told, Client(told.url, api_key="gw_x", retry=QUICK) as client:
        for _ in range(3):
            client.runs.get("r")
    assert sessions.asked == ["login", "refresh", "refresh"]


def test_requests_at_a_time_renew_once() -> None:
    sessions = Sessions(expires_in=900)
    with api(sessions) as told, Client(told.url, api_key="gw_x", retry=QUICK) as client:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(client.runs.get, ["r"] * 32))
            sessions.good.clear()
            list(threads.map(client.runs.get, ["r"] * 32))
        assert sessions.asked == ["login", "refresh"]

        async def many() -> None:
            async with (
                AsyncClient(told.url, api_key="gw_x", retry=QUICK) as client,
                anyio.create_task_group() as group,
            ):
                for _ in range(16):
                    group.start_soon(client.runs.get, "r")

        anyio.run(many)
        assert sessions.asked == ["login", "refresh", "login"]
    assert not sessions.reused


def test_a_wrong_api_key_is_not_tried_again() -> None:
    with api(problem(401, "bad_key")) as told, Client(told.url, api_key="gw_x") as client:
        with pytest.raises(Unauthenticated) as caught:
            client.runs.get("r")
        assert (caught.value.code, len(told.requests)) == ("bad_key", 1)


def test_a_login_that_the_api_cannot_serve_now_is_tried_again() -> None:
    sessions = Sessions(expires_in=900)
    replies = [problem(503, "unavailable"), sessions]
    with api(*replies) as told, Client(told.url, api_key="gw_x", retry=QUICK) as client:
        client.runs.cancel("r")
    assert [request.path.rpartition("/")[2] for request in told.requests] == [
        "login", "login", "cancel",
    ]  # fmt: skip


def test_a_function_is_asked_for_the_token_when_it_ends_or_is_refused() -> None:
    given = iter(["refused", expiring(10_000), expiring(-1), "last"])
    unauthenticated = problem(401, "unauthenticated")
    replies = [unauthenticated, Reply(200, RUN), Reply(200, RUN), unauthenticated, Reply(200, RUN)]
    with api(*replies) as told, Client(told.url, lambda: next(given)) as client:
        for _ in range(2):
            client.runs.get("r")
        client.runs.get("r")
        client.runs.get("r")
    tokens = [request.headers["Authorization"] for request in told.requests]
    assert tokens[0] == "Bearer refused"
    assert tokens[1] == tokens[2] == tokens[3]
    assert len({*tokens[3:]}) == 3


def expiring(seconds: float) -> str:
    return jwt.encode({"exp": time.time() + seconds}, KEY)


def test_a_coroutine_function_gives_the_token_of_an_asynchronous_client() -> None:
    async def token() -> str:
        return "mine"

    with api(Reply(200, RUN)) as told:

        async def ask() -> None:
            async with AsyncClient(told.url, token) as client:
                await client.runs.get("r")

        anyio.run(ask)
        assert told.requests[0].headers["Authorization"] == "Bearer mine"
        with Client(told.url, token) as client, pytest.raises(TypeError):
            client.runs.get("r")


def test_the_tokens_stay_out_of_what_is_printed() -> None:
    with Client("http://x", "hidden-t") as one, Client("http://x", api_key="hidden-k") as other:
        assert "hidden" not in f"{one!r}{vars(one)!r}{other!r}{vars(other)!r}"
    with pytest.raises(ValueError, match="not both"):
        Client("http://x", "a", api_key="b")
