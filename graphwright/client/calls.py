"""What a client can do, before anything is sent: calls, lists and streams of the API as values.

The modules of the resources make them, and ``sync`` and ``asynchronous`` carry them out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import quote

import httpx

from graphwright.client.errors import json_of

T = TypeVar("T")

Query: TypeAlias = Mapping[str, str | Sequence[str]]

IDEMPOTENCY_KEY = "Idempotency-Key"
_CREATED = 201
_PAGE = "100"


def json_body(answer: httpx.Response) -> Any:
    """The answer's JSON, which the API's OpenAPI document describes."""
    return json_of(answer)


def with_etag(answer: httpx.Response) -> Any:
    """The answer's object with its ``ETag`` as the member ``etag``, for ``if_match`` later on."""
    etag = answer.headers.get("ETag")
    found = json_of(answer)
    return found if etag is None else {**found, "etag": etag}


def was_created(answer: httpx.Response) -> tuple[Any, bool]:
    """The answer's object, and whether it is new."""
    return with_etag(answer), answer.status_code == _CREATED


def nothing(_: httpx.Response) -> None:
    """For answers without a body."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, ``path`` below ``/api/v1``, and how its answer is read."""

    method: str
    path: str
    read: Callable[[httpx.Response], T] = json_body
    query: Query = field(default_factory=dict[str, str])
    json: object = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does what sending it once does."""
        return self.method == "GET" or IDEMPOTENCY_KEY in self.headers

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        return http.build_request(
            self.method,
            self.path,
            params=dict(self.query),
            json=self.json,
            content=self.content,
            headers=dict(self.headers),
        )


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """A list, which comes in pages; ``T`` is what it lists."""

    path: str
    query: Query = field(default_factory=dict[str, str])
    paged: bool = True
    """Else the whole list comes at once."""

    def page(self, cursor: str | None) -> Call[Any]:
        asked = {"limit": _PAGE} if self.paged else {}
        more = {} if cursor is None else {"cursor": cursor}
        return Call("GET", self.path, query={**self.query, **asked, **more})


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of events, from its beginning or behind the position ``after``.

    With ``ends`` it is that of one run, and over with the run.
    """

    path: str
    query: Query = field(default_factory=dict[str, str])
    after: str | None = None
    ends: bool = False


def segment(value: str) -> str:
    """A value as one segment of a path."""
    return quote(value, safe="")


def given(
    **values: str | int | Sequence[str] | Mapping[str, str] | None,
) -> dict[str, str | Sequence[str]]:
    """Those that are not None, as a query; a mapping is ``key:value`` each."""
    found: dict[str, str | Sequence[str]] = {}
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, str | int):
            found[name] = str(value)
        elif isinstance(value, Mapping):
            found[name] = [f"{key}:{each}" for key, each in value.items()]
        else:
            found[name] = list(value)
    return found


def members(**values: Any) -> dict[str, Any]:
    """Those that are not None, as a JSON object."""
    return {name: value for name, value in values.items() if value is not None}


def matching(etag: str | None) -> dict[str, str]:
    """The header that has a change refused where the thing is not as ``etag`` says any more."""
    return {} if etag is None else {"If-Match": etag}
