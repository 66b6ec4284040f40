"""What requests count, by their route and never by their path; what the API's log says of them."""

import json
import logging
import re
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from foundation.ids import new_id
from foundation.settings import Limits, Settings
from foundation.telemetry.logs import ACCESS
from foundation.telemetry.metrics import HTTP_REQUESTS
from tests.dynamic_jobs.run_rows import RunRows
from tests.live_api.conftest import TokenFor, readiness, serving
from tests.live_api.receiving import add_trigger, receiving
from tests.live_api.test_server import api_process, started
from tests.services import free_port

SSE = {"Accept": "text/event-stream"}
RUN = "/api/v1/runs/{run_id}"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def requests(**labels: str) -> float:
    return REGISTRY.get_sample_value("graphwright_http_requests_total", labels) or 0


def watching(transport: str) -> float:
    labels = {"transport": transport}
    return REGISTRY.get_sample_value("graphwright_stream_clients", labels) or 0


def counted(labels: dict[str, str]) -> bool:
    return requests(**labels) > 0


def until(condition: Callable[[], bool]) -> None:
    """Requests are counted once they are answered, so a client may be quicker."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_every_route_is_counted_by_its_template(anonymous: httpx.Client) -> None:
    paths = anonymous.get("/openapi.json").json()["paths"]
    assert len(paths) > 20
    for path, operations in paths.items():
        for method in operations:
            answer = anonymous.request(method, re.sub(r"\{[a-z_]+\}", new_id(), path))
            labels = {"route": path, "method": method.upper(), "status": str(answer.status_code)}
            until(partial(counted, labels))


def test_head_is_counted_by_its_route(anonymous: httpx.Client) -> None:
    for path, route in (("/healthz", "/healthz"), (f"/api/v1/runs/{new_id()}", RUN)):
        labels = {"route": route, "method": "HEAD"}
        answer = anonymous.head(path)
        until(partial(counted, {**labels, "status": str(answer.status_code)}))


def test_what_callers_make_up_is_no_label(anonymous: httpx.Client) -> None:
    def unmatched() -> list[float]:
        each = {"route": "unmatched", "status": "404"}
        return [requests(**each, method=method) for method in ("GET", "other")]

    before, made_up = unmatched(), new_id()
    anonymous.get(f"/{made_up}")
    anonymous.request("PROPFIND", f"/{made_up}")
    until(lambda: all(now > then for now, then in zip(unmatched(), before, strict=True)))
    labels = [
        value
        for family in HTTP_REQUESTS.collect()
        for sample in family.samples
        for value in sample.labels.values()
    ]
    assert not [value for value in labels if made_up in value or value == "PROPFIND"]


def test_an_answer_is_counted_and_timed(client: httpx.Client) -> None:
    labels = {"route": "/api/v1/runs/{run_id}", "method": "GET", "status": "404"}
    took = {"route": labels["route"], "method": "GET"}

    def timed() -> float:
        return REGISTRY.get_sample_value("graphwright_http_request_seconds_count", took) or 0

    before = requests(**labels), timed()
    client.get(f"/api/v1/runs/{new_id()}")
    until(lambda: (requests(**labels), timed()) == (before[0] + 1, before[1] + 1))


def test_clients_of_streams_are_counted_while_they_are_there(
    settings: Settings, client: httpx.Client, api_url: str, token_for: TokenFor
) -> None:
    rows = RunRows(settings.database_url, settings.redis_url)
    path = f"/api/v1/runs/{rows.run_id}"
    timed = {"route": "/api/v1/runs/{run_id}/events", "method": "GET"}
    before = REGISTRY.get_sample_value("graphwright_http_request_seconds_count", timed)
    with client.stream("GET", f"{path}/events", headers=SSE) as response:
        assert response.is_success
        until(lambda: watching("sse") == 1)
    headers = {"Authorization": f"Bearer {token_for()}"}
    address = f"{api_url.replace('http', 'ws')}{path}/ws"
    with connect(address, additional_headers=headers, open_timeout=60):
        until(lambda: watching("websocket") == 1)
    until(lambda: watching("sse") == watching("websocket") == 0)
    after = REGISTRY.get_sample_value("graphwright_http_request_seconds_count", timed)
    assert after == before, "a stream is no slow request"


def test_the_metrics_port_of_the_api(settings: Settings, limits: Limits) -> None:
    port = free_port()
    own = settings.model_copy(update={"metrics_port": port})
    with (
        serving(own, limits) as url,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as told,
    ):
        httpx.get(f"{url}/healthz", timeout=30)
        ready = readiness(told, 200, '"redis":"ok"')
        parts = (
            "event_loop",
            "database",
            "sessions",
            "tenant_sessions",
            "sessions_by_key",
            "redis",
        )
        assert ready.json()["checks"] == dict.fromkeys(parts, "ok")
        names = {each.name for each in text_string_to_metric_families(told.get("/metrics").text)}
    assert {"graphwright_http_requests", "graphwright_database_pool_connections"} <= names


def test_a_run_says_of_which_trace_it_is(client: httpx.Client) -> None:
    assert client.post("/api/v1/graphs", json=DOCUMENT).status_code == 201
    header = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
    for headers, trace in ((header, TRACE), ({"traceparent": "nonsense"}, None), ({}, None)):
        answer = client.post("/api/v1/graphs/told/runs", headers=headers)
        run_id = answer.json()["run_id"]
        run = client.get(f"/api/v1/runs/{run_id}").json()
        assert run["trace_id"] == (trace or run_id.replace("-", ""))


DOCUMENT = {
    "apiVersion": "graphwright/v1",
    "kind": "Graph",
    "metadata": {"name": "told"},
    "nodes": {"a": {"type": "data.transform", "with": {"value": 1}}},
}


def test_the_log_names_requests_and_holds_no_credential(
    settings: Settings, token_for: TokenFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHWRIGHT_LOG_FORMAT", "json")
    token, secret = token_for(), "s3cr3t-value-that-nobody-logs"
    port = free_port()
    with api_process(settings, port) as process:
        assert started(process)
        url, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
            client.put("/api/v1/secrets/key", json={"value": secret})
            client.get("/api/v1/runs", params={"token": token, "graph": secret})
            client.post("/api/v1/auth/login", json={"api_key": f"gw_ab12cd34_{secret * 2}"})
            client.get(f"/api/v1/graphs/{token}")
            client.get(f"/{secret}")
            run = f"/api/v1/runs/{new_id()}"
            client.get(run, headers={"X-Request-ID": "mine-1"})
            client.get(f"{run}/events", params={"token": token}, headers=SSE)
        process.terminate()
        said = process.rest()
    lines = [json.loads(text) for text in said.splitlines()]
    asked = [line for line in lines if line["logger"] == ACCESS]
    assert len(asked) == 7
    assert token not in said
    assert secret not in said
    assert "?" not in "".join(line["message"] for line in asked)
    named = next(line for line in asked if line["request_id"] == "mine-1")
    assert (named["tenant"], named["subject"]) == ("acme", "ann")
    assert (named["route"], named["status"]) == ("/api/v1/runs/{run_id}", 404)
    assert named["run_id"] == run.rpartition("/")[2]
    assert named["milliseconds"] > 0


@contextmanager
def access_records(caplog: pytest.LogCaptureFixture) -> Generator[list[dict[str, Any]]]:
    logger = logging.getLogger(ACCESS)
    before, logger.disabled = logger.disabled, False
    found: list[dict[str, Any]] = []
    try:
        with caplog.at_level(logging.INFO, logger=ACCESS):
            yield found
    finally:
        logger.disabled = before
        found += [vars(each)["fields"] for each in caplog.records if each.name == ACCESS]


def test_the_address_of_a_webhook_is_in_no_log(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    address = add_trigger(settings, "none")
    labels = {"route": "/hooks/{address}", "method": "POST", "status": "202"}
    before = requests(**labels)
    with access_records(caplog) as found, receiving(settings) as url:
        assert httpx.post(f"{url}/{address}", json={}, timeout=30).status_code == 202
    assert [each["route"] for each in found] == ["/hooks/{address}"]
    assert address not in str(found)
    assert requests(**labels) == before + 1
