"""Routes that a plain request reaches without FastAPI's solving of parameters.

FastAPI spends a third of the time of a read on finding out for each request that there is next to
nothing to check: no header, no body, and of the query perhaps `limit=10`. A function whose
parameters allow that, and that makes its answer itself, is called at once for such a request. All
others go FastAPI's way, so what is refused, and how, is up to FastAPI alone, and so is the OpenAPI
document.
"""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from inspect import signature
from types import NoneType, UnionType
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

from fastapi import params
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from live_api.dependencies import RequireScope, services

Handler: TypeAlias = Callable[[Request], Coroutine[Any, Any, Response]]


class QuickRoute(APIRoute):
    """As APIRoute, but for GET it calls a function such as this at once:

        async def read_run(
            run_id: RunPath, parts: Parts, caller: Reader, if_none_match: IfNoneMatch = None
        ) -> Response: ...

    It may ask for the services, who calls, the request and strings of the path. What else it takes
    is a header with a default, which is what a plain request leaves it at, or a query parameter
    with one, of which a plain request has each once at most, and good.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._start = path.partition("{")[0]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        # For most routes that a request is not for this is enough, at a third of the time.
        if not scope.get("root_path") and not scope["path"].startswith(self._start):
            return Match.NONE, {}
        return super().matches(scope)

    def get_route_handler(self) -> Handler:
        careful = super().get_route_handler()
        call = plan(self.endpoint) if self.methods == {"GET"} else None
        if call is None:
            return careful
        endpoint, headers = self.endpoint, call.headers

        async def handle(request: Request) -> Response:
            scope = request.scope
            if any(name in headers for name, _ in scope["headers"]):
                return await careful(request)
            given: dict[str, Any] = {}
            if scope["query_string"]:
                asked = call.of_query(scope["query_string"])
                if asked is None:
                    return await careful(request)
                given = asked
            path: Mapping[str, str] = scope["path_params"]
            for name in call.of_path:
                given[name] = path[name]
            for name, dependency in call.dependencies.items():
                given[name] = await dependency(request)
            return await endpoint(**given)

        return handle


@dataclass(slots=True)
class Call:
    """What a function is called with."""

    of_path: list[str] = field(default_factory=list[str])
    dependencies: dict[str, Callable[[Request], Coroutine[Any, Any, object]]] = field(
        default_factory=dict[str, Callable[[Request], Coroutine[Any, Any, object]]]
    )
    headers: set[bytes] = field(default_factory=set[bytes])
    """Those that it takes, which a plain request has not."""
    query: dict[str, TypeAdapter[Any]] = field(default_factory=dict[str, TypeAdapter[Any]])
    """What it takes of the query, each a single value, as pydantic checks it for FastAPI too."""

    def of_query(self, query: bytes) -> dict[str, Any] | None:
        """What is given in a query of which all is known and good, else None."""
        given: dict[str, Any] = {}
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
            adapter = self.query.get(name)
            if adapter is None or name in given:
                return None
            try:
                given[name] = adapter.validate_python(value)
            except ValidationError:
                return None
        return given


def plan(endpoint: Callable[..., Any]) -> Call | None:
    """How to call this function, None where that is left to FastAPI."""
    hints = get_type_hints(endpoint, include_extras=True)
    if hints.get("return") is not Response:
        return None
    call = Call()
    for name, parameter in signature(endpoint).parameters.items():
        if not _add(call, name, hints[name], parameter.default):
            return None
    return call


def _add(call: Call, name: str, hint: Any, default: Any) -> bool:
    """Whether the parameter is one of those that we know."""
    if hint is Request:
        call.dependencies[name] = _itself
        return True
    if get_origin(hint) is not Annotated:
        return False
    kind, *said = get_args(hint)
    match said:
        case [params.Depends(dependency=asked)] if asked is services:
            call.dependencies[name] = services
        case [params.Depends(dependency=RequireScope() as asked)]:
            call.dependencies[name] = asked
        case [params.Path(metadata=[], alias=None)] if kind is str:
            call.of_path.append(name)
        case [params.Header(alias=alias)] if _stays(default):
            call.headers.add((alias or name.replace("_", "-")).lower().encode())
        case [params.Query(alias=None)] if _stays(default) and _is_single(kind):
            call.query[name] = TypeAdapter(hint)
        case [params.Query()] if _stays(default):
            pass  # a plain request has none of these
        case _:
            return False
    return True


def _is_single(kind: Any) -> bool:
    """Whether this is a value rather than a list of some, which FastAPI gathers."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return all(each in (str, int, bool, NoneType) for each in kinds)


def _stays(default: Any) -> bool:
    """Whether there is a default, which no call can change for the next."""
    return default is None or isinstance(default, str | int | tuple)


async def _itself(request: Request) -> Request:
    return request
