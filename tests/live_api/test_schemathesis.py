"""Every operation of the OpenAPI document, with values made from its schemas, against a running
API process: no 500, no status and no answer that the document does not tell of.

Half of the requests keep to the schemas, the others break them. Half have ids of things that exist,
so that they get behind "not found".
"""

# Schemathesis leaves the parameters of its generic types open.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from collections.abc import Iterator
from typing import Any, TypeAlias

import httpx
import pytest
import requests
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from schemathesis import APIOperation, BaseSchema, Case, GenerationMode, openapi
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from foundation.settings import Settings
from tests.live_api.conftest import TokenFor
from tests.live_api.test_graphs import document
from tests.live_api.test_server import api_process, started
from tests.services import free_port

_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
_WITH_DOCUMENT = {"graphs.publish", "graphs.put_draft", "graphs.validate"}
AnyOperation: TypeAlias = APIOperation[Any, Any, Any, Any]
AnyCase: TypeAlias = Case[Any]

_SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
_ORDER = ("GET", "PUT", "POST", "DELETE")
"""What changes things comes after what reads them, and what deletes them at the end."""


@pytest.fixture
def api(
    settings: Settings, token_for: TokenFor, monkeypatch: pytest.MonkeyPatch
) -> Iterator[httpx.Client]:
    """A client of a running process."""
    monkeypatch.setenv("GRAPHWRIGHT_REQUESTS_PER_MINUTE", "1000000")
    monkeypatch.setenv("GRAPHWRIGHT_REQUESTS_PER_MINUTE_ADDRESS", "1000000")
    headers = {"Authorization": f"Bearer {token_for(lifetime=3_600)}"}
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (
        api_process(settings, port) as process,
        httpx.Client(base_url=url, headers=headers, timeout=60) as client,
    ):
        assert started(process)
        yield client
        assert process.poll() is None
        process.terminate()
        process.wait(timeout=60)


def existing(client: httpx.Client) -> dict[str, str]:
    """A value of each path parameter for which there is something."""

    def post(path: str, body: Any = None) -> Any:
        return client.post(f"/api/v1{path}", json=body).raise_for_status().json()

    graph: Any = document()
    graph["triggers"] = {
        "hook": {"type": "webhook", "scheme": "none"},
        "clock": {"type": "timer", "every": "1h"},
    }
    published = post("/graphs", graph)
    client.put(f"/api/v1/graphs/{published['name']}/draft", json=graph).raise_for_status()
    client.put("/api/v1/secrets/known", json={"value": "a"}).raise_for_status()
    client.put("/api/v1/members/bob", json={"role": "viewer"}).raise_for_status()
    triggers = client.get(f"/api/v1/graphs/{published['name']}/triggers").json()["items"]
    (clock,) = (each["trigger_id"] for each in triggers if each["name"] == "clock")
    return {
        "graph": published["name"],
        "version": "1",
        "run_id": post(f"/graphs/{published['name']}/runs")["run_id"],
        "node": next(iter(graph["nodes"])),
        "trigger_id": clock,
        "name": "known",
        "subject": "bob",
        "tenant": "acme",
        "type": "data.transform",
        "token_id": post("/tokens", {"name": "key", "role": "viewer"})["token_id"],
    }


def operations(schema: BaseSchema) -> list[AnyOperation]:
    """All but those that answer with an endless stream, in the order of ``_ORDER``."""
    found = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
    finite = [each for each in found if not _is_endless(each)]
    return sorted(finite, key=lambda each: _ORDER.index(each.method.upper()))


def _is_endless(operation: AnyOperation) -> bool:
    answer = operation.definition.raw["responses"].get("200", {})
    return set(answer.get("content", {})) == {"text/event-stream"}


def examine(client: httpx.Client, examples: int) -> None:
    """Send ``examples`` requests to each operation."""
    schema = openapi.from_url(f"{client.base_url}/openapi.json")
    known = existing(client)
    headers = {"Authorization": client.headers["Authorization"]}
    found = operations(schema)
    assert len(found) > 50
    with requests.Session() as session:

        def send(case: AnyCase, is_known: bool) -> None:
            if is_known:
                parameters = case.path_parameters
                parameters.update({name: known[name] for name in parameters if name in known})
                if case.operation.definition.raw["operationId"] in _WITH_DOCUMENT:
                    case.body = document()
            answer = case.call(session=session, headers=headers, timeout=60)
            case.validate_response(answer, checks=_CHECKS)

        for operation in found:
            cases = st.one_of([operation.as_strategy(mode) for mode in GenerationMode])
            settled = hypothesis_settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=_SLOW,
            )
            settled(given(case=cases, is_known=st.booleans())(send))()


def test_every_operation_keeps_to_its_description(api: httpx.Client) -> None:
    examine(api, 4)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_every_operation_keeps_to_its_description_for_long(api: httpx.Client) -> None:
    examine(api, 500)
