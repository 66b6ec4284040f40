"""Manifests against the schemas of Kubernetes, strictly: no field that the newest version lacks."""

import functools
from typing import Any

import jsonschema
import kubernetes_validate
from jsonschema.protocols import Validator
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from tests.kubernetes.objects import Object

VERSION: str = kubernetes_validate.latest_version()
"""Of Kubernetes, whose schemas these are."""


@functools.cache
def _validator(kind: str, version: str) -> Validator:
    """What ``kubernetes-validate --strict`` makes for every object anew, from the same files."""
    folder = f"kubernetes-json-schema/v{VERSION}-local-strict"
    name = f"{kind.lower()}-{version.replace('/', '-')}.json"
    schema: Any = schema_contents(f"{folder}/{name}", VERSION)
    shared: Any = schema_contents(f"{folder}/_definitions.json", VERSION)
    resources: list[Any] = [Resource.from_contents(shared), Resource.from_contents(schema)]
    registry: Any = resources @ Registry[Any]()
    return jsonschema.Draft202012Validator(schema, registry=registry)


def faults(body: Object) -> list[str]:
    """What is wrong with a manifest of ``kind`` and ``apiVersion`` that the fake knows."""
    errors = _validator(body["kind"], body["apiVersion"]).iter_errors(body)
    return [f"{error.json_path.removeprefix('$.')}: {error.message}" for error in errors]
