"""What places runs in pods, by Dagster's own launcher, against the fake API server."""

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import psycopg
import pytest
from dagster import DagsterInstance

from dynamic_jobs.placing.base import PlacementFailed
from dynamic_jobs.placing.kubernetes_pod import label_value
from dynamic_jobs.storage import LeaseLost
from graph_defs.placement import Placement
from graph_defs.placement_policy import PlacementPolicy
from tests.dynamic_jobs.conftest import TENANT
from tests.kubernetes.placing import Placing, fake, placing
from tests.kubernetes.rules import of_metadata
from tests.kubernetes.server import FakeKubernetes
from tests.kubernetes.test_fake import IMAGE

__all__ = ["fake", "placing"]

pytestmark = pytest.mark.xdist_group("kubernetes")  # for the server is the module's


def test_the_operators_configuration_is_kept_where_it_may_be(placing: Placing) -> None:
    made, _ = placing.place()
    assert made.spec.ttl_seconds_after_finished == 60
    pod = made.spec.template.spec
    assert pod.priority_class_name == "low"
    assert pod.security_context.run_as_user == 10001
    assert pod.security_context.run_as_non_root
    (container,) = pod.containers
    assert container.image == IMAGE
    assert container.resources.requests == {"cpu": "100m", "memory": "256Mi"}
    assert {mount.mount_path: mount.name for mount in container.volume_mounts} == {
        "/tmp": "scratch",  # ours would be a second one
        "/etc/key": "key",
        "/var/lib/graphwright": "state",
    }
    assert [volume.name for volume in pod.volumes] == ["scratch", "key", "state"]


def test_graph_and_tenant_say_where_the_pod_goes(placing: Placing, fake: FakeKubernetes) -> None:
    fake.namespace("acmes")
    placement = Placement.of(
        {
            "isolation": "kubernetes",
            "resources": {"cpu": "2", "memory": "4Gi"},
            "kubernetes": {
                "service_account": "etl",
                "node_selector": {"pool": "batch"},
                "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
            },
        }
    )
    policy = PlacementPolicy.model_validate(
        {
            "kubernetes": {
                "namespace": "acmes",
                "required_node_selector": {"zone": "eu"},
                "labels": {"cost-centre": "7", "graphwright.dev/tenant": "other"},
            }
        }
    )
    long = "Nightly report / " + "x" * 80
    made, placed = placing.place(placement=placement, policy=policy, graph_name=long)
    assert placed.where == "acmes"
    pod = made.spec.template.spec
    assert pod.service_account_name == "etl"
    assert pod.node_selector == {"pool": "batch", "zone": "eu"}
    (toleration,) = pod.tolerations
    assert (toleration.key, toleration.effect) == ("spot", "NoSchedule")
    (container,) = pod.containers
    assert container.resources.requests == {"cpu": "2", "memory": "4Gi"}
    assert container.resources.limits == {"cpu": "2", "memory": "4Gi"}
    for labels in (made.metadata.labels, made.spec.template.metadata.labels):
        assert labels["graphwright.dev/tenant"] == TENANT
        assert labels["graphwright.dev/graph"] == label_value(long)
        assert labels["cost-centre"] == "7"
    placing.platform.remove(placed)
    assert placing.platform.health(placed).condition == "gone"


def test_tags_of_the_run_are_not_heeded(placing: Placing) -> None:
    """Whoever may start a run in Dagster's UI may give it tags."""
    config = {
        "container_config": {
            "image": "somebody/else",
            "command": ["sh"],
            "securityContext": {"privileged": True},
            "env": [{"name": "A", "value": "b"}],
        },
        "pod_spec_config": {"hostNetwork": True, "serviceAccountName": "admin"},
    }
    run = placing.request.run.with_tags(
        {
            **placing.request.run.tags,
            "dagster-k8s/config": json.dumps(config),
            "dagster-k8s/resource_requirements": json.dumps({"limits": {"cpu": "64"}}),
        }
    )
    made, _ = placing.place(run=run)
    pod = made.spec.template.spec
    assert (pod.host_network, pod.service_account_name) == (None, "default")
    (container,) = pod.containers
    assert container.image == IMAGE
    assert container.command == ["graphwright", "execute-run"]
    assert not container.security_context.privileged
    assert container.resources.limits == {"memory": "1Gi"}
    assert "A" not in [variable.name for variable in container.env]


def test_each_attempt_has_a_job_and_has_it_once(placing: Placing) -> None:
    run_id = placing.request.run_id
    for attempt, name in ((1, ""), (1, ""), (2, "-1"), (2, "-1"), (3, "-2")):
        made, placed = placing.place(attempt=attempt)
        assert made.metadata.name == f"dagster-run-{run_id}{name}"
        assert made.spec.template.metadata.labels["graphwright.dev/attempt"] == str(attempt)
        assert placing.platform.health(placed).condition == "starting"
    assert len(placing.batch.list_namespaced_job(placed.where).items) == 3
    placing.platform.remove(placed)
    placing.platform.remove(placed)  # which nobody minds
    assert len(placing.batch.list_namespaced_job(placed.where).items) == 2


def test_many_are_placed_at_once_over_connections_that_are_kept(
    placing: Placing, caplog: pytest.LogCaptureFixture
) -> None:
    together = Barrier(24)

    def place(attempt: int) -> None:
        together.wait()
        placing.platform.place(placing.ask(attempt=attempt))

    with ThreadPoolExecutor(together.parties) as threads:
        for _ in threads.map(place, range(1, together.parties + 1)):
            pass
    where = placing.platform.locate(placing.request)
    assert len(placing.batch.list_namespaced_job(where).items) == together.parties
    assert "Connection pool is full" not in caplog.text


def test_what_the_cluster_refuses_is_told(placing: Placing, fake: FakeKubernetes) -> None:
    nowhere = PlacementPolicy.model_validate({"kubernetes": {"namespace": "nowhere"}})
    with pytest.raises(PlacementFailed, match='namespaces "nowhere" not found') as raised:
        placing.platform.place(placing.ask(policy=nowhere))
    assert not raised.value.passing
    assert raised.value.ids == {"run_id": placing.request.run_id}


@pytest.mark.parametrize(
    "error", [psycopg.OperationalError("away"), ConnectionResetError(), LeaseLost("lost")]
)
def test_what_goes_wrong_with_our_own_servers_is_not_the_clusters(
    placing: Placing, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Dagster's launcher writes to the database before it makes the Job."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(DagsterInstance, "add_run_tags", fail)
    with pytest.raises(type(error)):
        placing.place()


def test_a_tenants_bounds_hold_where_its_graph_asks_for_nothing(placing: Placing) -> None:
    policy = PlacementPolicy.model_validate({"max_cpu": "2", "max_memory": "512Mi"})
    made, _ = placing.place(policy=policy)
    (container,) = made.spec.template.spec.containers
    assert container.resources.limits == {"cpu": "2", "memory": "512Mi"}
    assert container.resources.requests == {"cpu": "100m", "memory": "256Mi"}  # the operator's
    small = PlacementPolicy.model_validate({"max_cpu": "50m", "max_memory": "4Gi"})
    made, _ = placing.place(policy=small, attempt=2)
    (container,) = made.spec.template.spec.containers
    assert container.resources.limits == {"cpu": "50m", "memory": "1Gi"}
    assert container.resources.requests == {"cpu": "50m", "memory": "256Mi"}


@pytest.mark.parametrize(
    "text", ["acme", "a" * 64, "Ünïcode name", "-", "", "a/b", "x" * 50 + " " + "y" * 50, "a.b_c"]
)
def test_any_name_can_be_a_label(text: str) -> None:
    found = label_value(text)
    assert found
    assert list(of_metadata({"labels": {"a": found}}, "metadata")) == []
    assert (found == text) is (text in ("acme", "a.b_c"))


def test_names_that_look_alike_have_other_labels() -> None:
    assert label_value("a b") != label_value("a-b")
