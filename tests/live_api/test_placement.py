"""Where runs may be executed: what a graph asks for, and what its tenant may have."""

from typing import Any

import httpx
import pytest

from foundation.database import connect
from foundation.settings import Settings
from tests.live_api.conftest import ClientFor
from tests.live_api.test_graphs import document
from tests.live_api.test_problems import check

FAR: dict[str, Any] = {
    "isolation": "kubernetes",
    "resources": {"cpu": "1500m", "memory": "2Gi"},
    "kubernetes": {
        "service_account": "etl",
        "node_selector": {"pool": "batch", "example.org/zone": "a"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    },
}
ALLOWED = """{
    "max_cpu": "2", "max_memory": "2048Mi",
    "kubernetes": {
        "service_accounts": ["etl"], "node_selector": {"pool": ["batch", "gpu"]},
        "required_node_selector": {"example.org/zone": "a"}, "tolerations": ["dedicated"]
    }
}"""
TIGHT = """{
    "max_cpu": "1", "max_memory": "1Gi",
    "kubernetes": {
        "service_accounts": ["other"], "node_selector": {"pool": ["gpu"]},
        "required_node_selector": {"example.org/zone": "b"}
    }
}"""


def allow(settings: Settings, tenant: str, placement: str) -> None:
    with connect(settings.database_url) as connection:
        connection.execute(
            "UPDATE graphwright.tenants SET isolations = '{warm,kubernetes}', placement = %s"
            " WHERE tenant = %s",
            (placement, tenant),
        )


def post(client: httpx.Client, **more: Any) -> httpx.Response:
    return client.post("/api/v1/graphs", json={**document(), **more})


def faults(answer: httpx.Response) -> set[tuple[str, str]]:
    problem: Any = check(answer, 422, "invalid")
    assert all(each["hint"] for each in problem["errors"])
    return {(each["pointer"], each["code"]) for each in problem["errors"]}


def test_a_tenant_has_the_isolations_that_its_operator_allows(
    client: httpx.Client, client_for: ClientFor, settings: Settings
) -> None:
    assert post(client, isolation="process").status_code == 201
    assert faults(post(client, **FAR)) == {("/isolation", "isolation_not_allowed")}
    allow(settings, "acme", ALLOWED)
    assert post(client, **FAR).status_code == 201
    assert faults(post(client, isolation="process")) == {("/isolation", "isolation_not_allowed")}
    assert faults(post(client_for("other"), **FAR)) == {("/isolation", "isolation_not_allowed")}


def test_a_step_that_needs_a_worker_is_not_published_to_run_in_a_pod(
    client: httpx.Client, settings: Settings
) -> None:
    allow(settings, "acme", ALLOWED)
    boxed: Any = {"nodes": {"box": {"type": "docker.run", "with": {"image": "python"}}}}
    assert faults(post(client, **boxed, **FAR)) == {("/nodes/box/type", "needs_worker")}
    assert post(client, **boxed).status_code == 201


def test_what_is_asked_for_is_within_the_allow_list(
    client: httpx.Client, settings: Settings
) -> None:
    post(client)
    allow(settings, "acme", TIGHT)
    assert faults(post(client, **FAR)) == {
        ("/resources/cpu", "resources_not_allowed"),
        ("/resources/memory", "resources_not_allowed"),
        ("/kubernetes/service_account", "service_account_not_allowed"),
        ("/kubernetes/node_selector/pool", "node_selector_not_allowed"),
        ("/kubernetes/node_selector/example.org~1zone", "node_selector_not_allowed"),
        ("/kubernetes/tolerations/0", "toleration_not_allowed"),
    }


def test_a_draft_is_published_within_the_policy(client: httpx.Client) -> None:
    client.put("/api/v1/graphs/digest/draft", json={**document(), "isolation": "docker"})
    answer = client.post("/api/v1/graphs/digest/publish")
    assert faults(answer) == {("/isolation", "isolation_not_allowed")}


@pytest.mark.parametrize(
    ("wrong", "pointer", "code"),
    [
        ({"isolation": "cloud"}, "/isolation", "bad_value"),
        ({"on_lost": "ignore"}, "/on_lost", "bad_value"),
        ({"resources": {"cpu": "1"}}, "/resources", "conflicting_fields"),
        ({"isolation": "docker", "kubernetes": {}}, "/kubernetes", "conflicting_fields"),
        ({"isolation": "docker", "resources": {"cpu": "0"}}, "/resources/cpu", "bad_value"),
        ({"isolation": "docker", "resources": {"cpu": "0.9m"}}, "/resources/cpu", "bad_value"),
        ({"isolation": "docker", "resources": {"memory": "500m"}}, "/resources/memory", None),
        ({"isolation": "docker", "resources": {"memory": "5Mi"}}, "/resources/memory", None),
        ({"isolation": "docker", "resources": {"memory": "1 GB"}}, "/resources/memory", None),
        ({"isolation": "docker", "image": "mine"}, "/image", "unknown_field"),
        (
            {"isolation": "kubernetes", "kubernetes": {"tolerations": [{"key": "a"}]}},
            "/kubernetes/tolerations/0",
            "conflicting_fields",
        ),
        (
            {"isolation": "kubernetes", "kubernetes": {"service_account": "Root!"}},
            "/kubernetes/service_account",
            None,
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    client: httpx.Client, wrong: dict[str, Any], pointer: str, code: str | None
) -> None:
    problem: Any = check(post(client, **wrong), 422, "invalid")
    (fault,) = problem["errors"]
    assert fault["pointer"] == pointer
    assert code in (None, fault["code"])
