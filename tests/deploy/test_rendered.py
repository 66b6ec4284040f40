"""The rendered copies: up to date, and good by the schemas of Kubernetes and of the operators."""

import json
from typing import Any, cast

import jsonschema
import kubernetes_validate
import pytest

from tests.deploy.manifests import KUBERNETES, OVERLAYS, Manifests, Object, kustomized
from tests.kubernetes.security import violations

OPERATORS = ("keda.sh/v1alpha1", "monitoring.coreos.com/v1")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_committed_copy_is_what_the_overlay_renders_to(overlay: str) -> None:
    made = kustomized(KUBERNETES / "overlays" / overlay)
    committed = (KUBERNETES / "rendered" / f"{overlay}.yaml").read_text("utf-8")
    assert made == committed, f"run `make rendered`: {overlay} has changed"


def test_every_object_is_good_by_its_schema(manifests: Manifests) -> None:
    found: list[str] = []
    for each in manifests.objects:
        found += [f"{each['kind']} {each['metadata']['name']}: {said}" for said in faults(each)]
    assert found == []


@pytest.mark.parametrize(
    ("kind", "name", "change"),
    [
        ("Deployment", "graphwright-api", {"replica": 2}),
        ("ScaledObject", "graphwright-worker", {"minReplicas": 2}),
        ("ServiceMonitor", "graphwright", {"endpoint": []}),
    ],
)
def test_a_misspelt_field_would_be_found(
    production: Manifests, kind: str, name: str, change: Object
) -> None:
    wrong = production.get(kind, name)
    wrong = {**wrong, "spec": {**wrong["spec"], **change}}
    assert [next(iter(change)) in said for said in faults(wrong)] == [True]


def test_no_two_objects_are_the_same_one(manifests: Manifests) -> None:
    keys = [
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in manifests.objects
    ]
    assert len(set(keys)) == len(keys)


def test_every_namespace_is_restricted_and_all_pods_comply(manifests: Manifests) -> None:
    levels = {
        each["metadata"]["name"]: each["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for each in manifests.of("Namespace")
    }
    assert set(levels.values()) == {"restricted"}
    for pods in manifests.pods():
        assert pods.namespace in levels
        assert violations(pods.spec) == []
        assert pods.container["securityContext"]["readOnlyRootFilesystem"] is True
        assert {"requests", "limits"} <= pods.container["resources"].keys()


def faults(body: Object) -> list[str]:
    """What the newest API server says of it that is known here, asked to be strict."""
    if body["apiVersion"] in OPERATORS:
        return of_operator(body)
    try:
        kubernetes_validate.validate(body, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return [error.message]
    return []


def of_operator(body: Object) -> list[str]:
    """As the API server answers ``kubectl --validate=strict`` where the operator's CRD is there."""
    group, version = body["apiVersion"].split("/")
    folder = KUBERNETES.parent.parent / "tests" / "deploy" / "schemas"
    schema = json.loads((folder / f"{group}-{version}-{body['kind']}.json").read_text("utf-8"))
    errors = jsonschema.Draft202012Validator(_closed(schema)).iter_errors(body)
    return [f"{error.json_path}: {error.message}" for error in errors]


def _closed(schema: Any) -> Any:
    """The schema of a CRD, in which fields that it does not know are faults."""
    if isinstance(schema, list):
        return [_closed(each) for each in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    given = cast("Object", schema)
    closed = {key: _closed(value) for key, value in given.items()}
    if "properties" in given and "x-kubernetes-preserve-unknown-fields" not in given:
        closed.setdefault("additionalProperties", False)
    return closed
