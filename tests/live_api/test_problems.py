"""Every fault is a problem document, and none says what went on inside."""

import json
import re

import httpx
import psycopg
import pytest
from fastapi import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from foundation.errors import Conflict
from foundation.settings import Limits, Settings
from live_api.app import create_app
from live_api.middleware import REQUEST_ID_HEADER
from tests.live_api.conftest import serving_app

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def check(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"urn:graphwright:problem:{code}"
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["title"] and problem["detail"]
    assert problem["request_id"] == answer.headers[REQUEST_ID_HEADER]
    assert "Traceback" not in answer.text
    return problem


@pytest.mark.parametrize("path", ["/", "/api/v1/nothing", "/api/v1/graphs/", "/api/v2/graphs"])
def test_unknown_path(client: httpx.Client, path: str) -> None:
    check(client.get(path), 404, "not_found")


def test_wrong_method(client: httpx.Client) -> None:
    answer = client.delete("/api/v1/graphs")
    check(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["allow"] or "GET" in answer.headers["allow"]


def test_unknown_graph_names_itself(client: httpx.Client) -> None:
    problem = check(client.get("/api/v1/graphs/nothing"), 404, "not_found")
    assert problem["graph"] == "nothing"
    assert problem["hint"]


def test_no_token(anonymous: httpx.Client) -> None:
    check(anonymous.get("/api/v1/graphs"), 401, "unauthenticated")


def test_bad_query_lists_every_fault(client: httpx.Client) -> None:
    problem = check(client.get("/api/v1/graphs?limit=-1"), 422, "invalid")
    (fault,) = problem["errors"]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
    assert fault["pointer"] == "/limit"
    assert "greater than or equal to 1" in fault["message"]


def test_unforeseen_error_says_nothing(client: httpx.Client, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("DROP TABLE graphwright.graphs CASCADE")
    answer = client.get("/api/v1/graphs")
    problem = check(answer, 500, "internal")
    assert "graphwright.graphs" not in answer.text
    assert str(problem["request_id"]) in str(problem["hint"])


def test_request_id_is_made(anonymous: httpx.Client) -> None:
    first, second = (anonymous.get("/healthz").headers[REQUEST_ID_HEADER] for _ in range(2))
    assert UUID.fullmatch(first)
    assert first != second


def test_request_id_is_taken_over(anonymous: httpx.Client) -> None:
    answer = anonymous.get("/nothing", headers={REQUEST_ID_HEADER: "trace-1.2:3"})
    assert check(answer, 404, "not_found")["request_id"] == "trace-1.2:3"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "é", "a\tb"])
def test_odd_request_id_is_replaced(anonymous: httpx.Client, given: str) -> None:
    answer = anonymous.get("/healthz", headers={REQUEST_ID_HEADER: given.encode("latin-1")})  # pyright: ignore[reportArgumentType]
    assert UUID.fullmatch(answer.headers[REQUEST_ID_HEADER])


def test_big_answers_are_compressed(anonymous: httpx.Client) -> None:
    answer = anonymous.get("/openapi.json", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json()["openapi"].startswith("3.1")


def test_openapi_describes_problems_and_documents(anonymous: httpx.Client) -> None:
    document = anonymous.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert {"Problem", "ProblemFault", "GraphDocument", "GraphModel", "GraphPage"} <= set(schemas)
    assert "HTTPValidationError" not in schemas
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    publish = document["paths"]["/api/v1/graphs"]["post"]
    assert publish["security"] == [{"token": []}]
    assert set(publish["requestBody"]["content"]) >= {"application/json", "application/yaml"}
    assert {"200", "201", "401", "403", "413", "415", "422"} <= set(publish["responses"])
    for path in ("/api/v1/graphs/{graph}/runs", "/api/v1/runs/{run_id}/rerun"):
        headers = document["paths"][path]["post"]["responses"]["202"]["headers"]
        assert set(headers) == {"Location", "Idempotency-Replayed"}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("summary"), f"{method} {path}"
            for parameter in operation.get("parameters", ()):
                assert parameter.get("description"), f"{parameter['name']} of {method} {path}"
            for status, answer in operation["responses"].items():
                if status >= "400":
                    assert list(answer["content"]) == ["application/problem+json"], path


def test_openapi_has_no_dangling_reference(anonymous: httpx.Client) -> None:
    answer = anonymous.get("/openapi.json")
    known = set(answer.json()["components"]["schemas"])
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', answer.text)) <= known


def test_websocket_problems(settings: Settings, limits: Limits) -> None:
    """Before the handshake a problem document refuses it; after it, its code closes it."""
    app = create_app(settings, limits)

    @app.websocket("/fails/{when}")
    async def fail(websocket: WebSocket, when: str) -> None:  # pyright: ignore[reportUnusedFunction]
        if when == "late":
            await websocket.accept()
        raise Conflict("it clashes")

    with serving_app(app) as url:
        address = url.replace("http:", "ws:") + "/fails"
        with pytest.raises(InvalidStatus) as refused, connect(f"{address}/early", open_timeout=60):
            pass
        assert refused.value.response.status_code == 409
        problem = json.loads(refused.value.response.body)
        assert problem["code"] == "conflict"
        assert problem["request_id"] == refused.value.response.headers[REQUEST_ID_HEADER]
        with (
            connect(f"{address}/late", open_timeout=60) as socket,
            pytest.raises(ConnectionClosed) as closed,
        ):
            socket.recv(timeout=60)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, "conflict")
