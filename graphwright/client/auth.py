"""Who the client is: a token that is renewed before it ends, for ``httpx`` of both kinds.

Renewals are sent by one request at a time. A refresh token that comes twice ends its session, so
two requests must not both use it.
"""

import base64
import inspect
import json
import threading
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, TypeAlias, cast

import anyio
import httpx

from foundation.errors import Unauthenticated
from graphwright.client.errors import json_of, raise_for_fault
from graphwright.client.retrying import AGAIN

TokenSource: TypeAlias = str | Callable[[], str] | Callable[[], Awaitable[str]]

_EARLY_SECONDS = 60.0
_EARLY_SHARE = 0.2  # of a short life
_UNAUTHORIZED = 401

_Step: TypeAlias = httpx.Request | Awaitable[str]
_Renewal: TypeAlias = Generator[_Step, Any, None]


class _Renewed(httpx.Auth):
    """Sends a token, gets another before it ends, and one more where it is refused."""

    def __init__(self) -> None:
        self._token = ""
        self._renew_at = 0.0  # of time.monotonic
        self._lock = threading.Lock()
        self._async_lock = anyio.Lock()

    @abstractmethod
    def _renewal(self) -> _Renewal:
        """Call ``_take`` after the steps that it takes: requests, or a coroutine to wait for."""

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        refused = ""
        while True:
            with self._lock:
                if self._is_stale(refused):
                    yield from self._renewed()
                token = self._token
            answer = yield _with(request, token)
            if answer.status_code != _UNAUTHORIZED or refused:
                return
            refused = token

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        refused = ""
        while True:
            async with self._async_lock:
                if self._is_stale(refused):
                    renewal = self._renewal()
                    step = next(renewal, None)
                    while step is not None:
                        if isinstance(step, httpx.Request):
                            answer = yield step
                            await answer.aread()
                            step = _next(renewal, answer)
                        else:
                            step = _next(renewal, await step)
                token = self._token
            answer = yield _with(request, token)
            if answer.status_code != _UNAUTHORIZED or refused:
                return
            refused = token

    def _renewed(self) -> Generator[httpx.Request, httpx.Response, None]:
        renewal = self._renewal()
        step = next(renewal, None)
        while step is not None:
            if not isinstance(step, httpx.Request):
                renewal.close()
                if inspect.iscoroutine(step):
                    step.close()
                raise TypeError("a coroutine can give the token of an AsyncClient only")
            answer = yield step
            answer.read()
            step = _next(renewal, answer)

    def _is_stale(self, refused: str) -> bool:
        """Another request may have renewed the token that was refused."""
        return self._token in {"", refused} or time.monotonic() >= self._renew_at

    def _take(self, token: str, lives_seconds: float | None) -> None:
        self._token = token
        self._renew_at = float("inf")
        if lives_seconds is not None:
            early = min(_EARLY_SECONDS, lives_seconds * _EARLY_SHARE)
            self._renew_at = time.monotonic() + lives_seconds - early


class Fixed(httpx.Auth):
    """Sends one token as long as it is good."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        yield _with(request, self._token)


class TokenFrom(_Renewed):
    """The token that a function gives, which is asked again before it ends."""

    def __init__(self, source: Callable[[], str] | Callable[[], Awaitable[str]]) -> None:
        super().__init__()
        self._source = source

    def _renewal(self) -> _Renewal:
        given = self._source()
        token = cast("str", (yield given)) if inspect.isawaitable(given) else given
        self._take(token, seconds_left(token))


class ApiKey(_Renewed):
    """Logs in with an API key, and keeps the session going by its refresh tokens."""

    def __init__(self, url: str, api_key: str) -> None:
        super().__init__()
        self._url = f"{url}/auth"
        self._api_key = api_key
        self._refresh_token = ""

    def _renewal(self) -> _Renewal:
        if self._refresh_token:
            given = {"refresh_token": self._refresh_token}
            # Whatever becomes of it: sent a second time it would end the session.
            self._refresh_token = ""
            try:
                self._begin((yield httpx.Request("POST", f"{self._url}/refresh", json=given)))
            except Unauthenticated:
                pass  # it is over, or our answer of last time was lost
            else:
                return
        given = {"api_key": self._api_key}
        self._begin((yield httpx.Request("POST", f"{self._url}/login", json=given)))

    def _begin(self, answer: httpx.Response) -> None:
        if answer.status_code in AGAIN:
            # As the request itself has not been sent, whoever sends it may try again.
            raise httpx.ConnectError(f"{answer.request.url} answers {answer.status_code}")
        raise_for_fault(answer)
        session = json_of(answer)
        self._refresh_token = session["refresh_token"]
        self._take(session["access_token"], session["expires_in"])


def auth_of(url: str, token: TokenSource | None, api_key: str | None) -> httpx.Auth | None:
    """How requests to the API at ``url`` prove themselves."""
    if api_key is not None:
        if token is not None:
            raise ValueError("give a token or an API key, not both")
        return ApiKey(url, api_key)
    if callable(token):
        return TokenFrom(token)
    return Fixed(token) if token else None


def seconds_left(token: str) -> float | None:
    """How long a JWT is still good for by this machine's clock, None where it does not say."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"]) - time.time()
    except (IndexError, ValueError, KeyError, TypeError):
        return None


def _next(renewal: _Renewal, result: object) -> _Step | None:
    try:
        return renewal.send(result)
    except StopIteration:
        return None


def _with(request: httpx.Request, token: str) -> httpx.Request:
    request.headers["Authorization"] = f"Bearer {token}"
    return request
