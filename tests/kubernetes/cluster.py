"""What the fake API server does with a request: it validates, holds, and has others act."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from tests.kubernetes import rules, schemas, security
from tests.kubernetes.controller import JobController
from tests.kubernetes.kubelet import Kubelet
from tests.kubernetes.objects import Object, Rejected, Store, invalid, now

RESOURCES: Final = {
    "namespaces": ("v1", "Namespace"),
    "serviceaccounts": ("v1", "ServiceAccount"),
    "configmaps": ("v1", "ConfigMap"),
    "secrets": ("v1", "Secret"),
    "events": ("v1", "Event"),
    "pods": ("v1", "Pod"),
    "jobs": ("batch/v1", "Job"),
}
"""What there is, by its plural."""


@dataclass
class Cluster:
    """A cluster of one node. ``executes`` is off where only the API is of interest: then no pod is
    ever made of a Job, and a pod stays ``Pending``."""

    folder: Path
    images: frozenset[str]
    address: str
    executes: bool = True
    store: Store = field(default_factory=Store)
    unknown: list[str] = field(default_factory=list[str])
    """Requests that the fake does not know."""

    def __post_init__(self) -> None:
        self.kubelet = Kubelet(self.store, self.folder, self.images, self.address, self.warn)
        self.jobs = JobController(self.store, self.kubelet, self._create_pod, self.warn)
        self.store.changed = self.jobs.changed

    def create(self, plural: str, namespace: str, body: Any) -> Object:
        """Validate and hold an object, and act upon it."""
        version, kind = RESOURCES[plural]
        if not isinstance(body, dict):
            raise Rejected(400, "BadRequest", "the body is no JSON object")
        sent: Object = _said(body)
        given: Object = {"apiVersion": version, "kind": kind, "metadata": {}, **sent}
        if (given["apiVersion"], given["kind"]) != (version, kind):
            message = f"{given['apiVersion']} {given['kind']} does not match {version} {kind}"
            raise Rejected(400, "BadRequest", message)
        metadata = given["metadata"]
        name = metadata.get("name") or f"{metadata.get('generateName', '')}00000"
        if problems := schemas.faults(given):
            raise invalid(kind, name, problems)
        if problems := list(_faults(given, name)):
            raise invalid(kind, name, problems)
        given.pop("status", None)
        match kind:
            case "Pod":
                return self._create_pod(namespace, given)
            case "Job":
                return self._create_job(namespace, given)
            case "Namespace":
                held = self.store.create("", given)
                account = {"apiVersion": "v1", "kind": "ServiceAccount"}
                self.store.create(name, {**account, "metadata": {"name": "default"}})
                return held
            case _:
                return self.store.create(namespace, given)

    def _create_pod(self, namespace: str, pod: Object) -> Object:
        """Admission: the pod's account must be there, and it must meet the namespace's standard."""
        labels = self.store.read("Namespace", "", namespace)["metadata"].get("labels", {})
        account = pod["spec"].setdefault("serviceAccountName", "default")
        name = pod["metadata"].get("name", pod["metadata"].get("generateName"))
        if self.store.find("ServiceAccount", namespace, account) is None:
            message = f'pods "{name}" is forbidden: serviceaccount "{account}" not found'
            raise Rejected(403, "Forbidden", message)
        if labels.get(security.ENFORCE) == "restricted" and (
            problems := security.violations(pod["spec"])
        ):
            message = f'violates PodSecurity "restricted:latest": {", ".join(problems)}'
            raise Rejected(403, "Forbidden", f'pods "{name}" is forbidden: {message}')
        for container in pod["spec"]["containers"]:
            resources = container.get("resources", {})
            if limits := resources.get("limits"):
                resources["requests"] = {**limits, **resources.get("requests", {})}
        pod["status"] = {"phase": "Pending"}
        held = self.store.create(namespace, pod)
        if self.executes:
            self.kubelet.start(held)
        return held

    def _create_job(self, namespace: str, job: Object) -> Object:
        held = self.store.create(namespace, job)
        spec, metadata = held["spec"], held["metadata"]
        labels = {
            "batch.kubernetes.io/controller-uid": metadata["uid"],
            "batch.kubernetes.io/job-name": metadata["name"],
            "controller-uid": metadata["uid"],
            "job-name": metadata["name"],
        }
        template = spec["template"]
        template["metadata"] = template.get("metadata", {})
        template["metadata"]["labels"] = {**template["metadata"].get("labels", {}), **labels}
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": metadata["uid"]}}
        spec |= {"parallelism": 1, "completions": 1, "backoffLimit": spec.get("backoffLimit", 6)}
        held["status"] = {}
        if self.executes:
            self.jobs.accept(held)
        return held

    def delete(self, plural: str, namespace: str, name: str, options: Object) -> Object:
        """Delete an object; a pod that runs goes when it has stopped."""
        kind = RESOURCES[plural][1]
        held = self.store.read(kind, namespace, name)
        match kind:
            case "Pod":
                self.kubelet.delete(held, options.get("gracePeriodSeconds"))
                return held
            case "Job":
                self.jobs.delete(held, options.get("propagationPolicy") or "Orphan")
            case "Namespace":
                raise Rejected(405, "MethodNotAllowed", "the fake keeps its namespaces")
            case _:
                self.store.remove(held)
        return {"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success"}

    def warn(self, about: Object, reason: str, message: str) -> None:
        """Write an event of type Warning."""
        metadata = about["metadata"]
        self.store.create(
            metadata["namespace"],
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"{metadata['name']}.{secrets.token_hex(8)}"},
                "involvedObject": {
                    "kind": about["kind"],
                    "name": metadata["name"],
                    "namespace": metadata["namespace"],
                    "uid": metadata["uid"],
                },
                "type": "Warning",
                "reason": reason,
                "message": message,
                "count": 1,
                "firstTimestamp": now(),
                "lastTimestamp": now(),
            },
        )

    def close(self) -> None:
        self.kubelet.close()


def _said(value: Any) -> Any:
    """Without what is null, which is as if it were not said."""
    if isinstance(value, dict):
        held = cast("Object", value)
        return {key: _said(each) for key, each in held.items() if each is not None}
    if isinstance(value, list):
        return [_said(each) for each in cast("list[Any]", value)]
    return value


def _faults(given: Object, name: str) -> list[str]:
    if not rules.is_subdomain(name):
        return [f"metadata.name: Invalid value: {name!r}: it is no DNS subdomain"]
    match given["kind"]:
        case "Job":
            return list(rules.of_job(given))
        case "Pod":
            metadata = rules.of_metadata(given["metadata"], "metadata")
            return [*metadata, *rules.of_pod(given["spec"])]
        case _:
            return list(rules.of_metadata(given["metadata"], "metadata"))
