"""The paths of the fake API server: those that are used, and no others."""

import copy
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.kubernetes.cluster import RESOURCES, Cluster
from tests.kubernetes.objects import Object, Rejected

_LIST: Final = frozenset({"labelSelector", "fieldSelector"})
_LOG: Final = frozenset({"container", "follow", "timestamps", "tailLines", "sinceSeconds"})
_DELETE: Final = frozenset({"gracePeriodSeconds", "propagationPolicy"})

Handler = Callable[[Request], Awaitable[Response]]


def _answer(body: Any, code: int = 200) -> Response:
    return Response(orjson.dumps(body), code, media_type="application/json")


def _failure(error: Rejected) -> Response:
    body: Object = {"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure"}
    told = {"message": str(error), "reason": error.reason, "code": error.code}
    return _answer({**body, **told}, error.code)


def app(cluster: Cluster, token: str, limited: str, rights: frozenset[str]) -> Starlette:
    """Serve the cluster to those who bear the token; who bears the ``limited`` one has these
    rights, each a verb, a colon and a resource."""

    def known(request: Request, verb: str, resource: str, parameters: frozenset[str]) -> None:
        given = request.headers.get("authorization")
        if given not in (f"Bearer {token}", f"Bearer {limited}"):
            raise Rejected(401, "Unauthorized", "Unauthorized")
        if given == f"Bearer {limited}" and f"{verb}:{resource}" not in rights:
            message = f'User "limited" cannot {verb} resource "{resource}"'
            raise Rejected(403, "Forbidden", message)
        if not request.query_params.keys() <= parameters:
            raise LookupError(request.url.path)

    def handler(plural: str) -> Handler:
        async def collection(request: Request) -> Response:
            namespace = request.path_params.get("namespace", "")
            if request.method == "POST":
                known(request, "create", plural, frozenset())
                body: Any = orjson.loads(await request.body())
                return _answer(cluster.create(plural, namespace, body), 201)
            known(request, "list", plural, _LIST)
            query = request.query_params
            selectors = query.get("labelSelector", ""), query.get("fieldSelector", "")
            return _answer(cluster.store.listed(RESOURCES[plural][1], namespace, *selectors))

        return collection

    def one(plural: str) -> Handler:
        async def object_(request: Request) -> Response:
            namespace = request.path_params.get("namespace", "")
            name = request.path_params["name"]
            if request.method == "DELETE":
                known(request, "delete", plural, _DELETE)
                given: Object = orjson.loads(await request.body() or b"{}")
                options = {**given, **_numbers(request.query_params)}
                return _answer(cluster.delete(plural, namespace, name, options))
            known(request, "get", plural, frozenset())
            return _answer(copy.deepcopy(cluster.store.read(RESOURCES[plural][1], namespace, name)))

        return object_

    async def job_status(request: Request) -> Response:
        known(request, "get", "jobs/status", frozenset())
        return _answer(cluster.store.read("Job", **request.path_params))

    async def log(request: Request) -> Response:
        known(request, "get", "pods/log", _LOG)
        query = request.query_params
        pod = cluster.store.read("Pod", **request.path_params)
        container = cluster.kubelet.container(pod, query.get("container"))
        name = pod["metadata"]["name"]
        if container is None:
            message = f"container {query['container']} is not valid for pod {name}"
            raise Rejected(400, "BadRequest", message)
        if container.process is None and container.exit_code is None:
            message = f'container "{container.name}" in pod "{name}" is waiting to start: '
            raise Rejected(400, "BadRequest", f"{message}PodInitializing")
        tail = int(query["tailLines"]) if "tailLines" in query else None
        lines = container.log(tail, _true(query, "follow"), _true(query, "timestamps"))
        return StreamingResponse(lines, media_type="text/plain")

    async def seen(_request: Request) -> Response:
        return _answer({"unknown": cluster.unknown})

    async def unknown(request: Request, _error: Exception) -> Response:
        cluster.unknown.append(f"{request.method} {request.url.path}?{request.url.query}")
        message = "the fake does not know this request"
        return _failure(Rejected(404, "NotFound", message))

    async def rejected(_request: Request, error: Exception) -> Response:
        assert isinstance(error, Rejected)
        return _failure(error)

    routes = [
        Route("/fake/seen", seen),
        Route("/apis/batch/v1/namespaces/{namespace}/jobs/{name}/status", job_status),
        Route("/api/v1/namespaces/{namespace}/pods/{name}/log", log),
    ]
    for plural, (version, _kind) in RESOURCES.items():
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        path = f"{base}/namespaces" if plural == "namespaces" else (
            f"{base}/namespaces/{{namespace}}/{plural}"
        )  # fmt: skip
        routes.append(Route(path, handler(plural), methods=["GET", "POST"]))
        routes.append(Route(f"{path}/{{name}}", one(plural), methods=["GET", "DELETE"]))
    return Starlette(
        routes=routes,
        exception_handlers={404: unknown, 405: unknown, LookupError: unknown, Rejected: rejected},
    )


def _true(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "") in ("1", "t", "T", "true", "True", "TRUE")  # as Go reads it


def _numbers(query: Mapping[str, str]) -> Object:
    return {key: int(value) if value.isdigit() else value for key, value in query.items()}
