"""Rules of the API server for Jobs and Pods that its schemas do not hold.

Source: ``pkg/apis/core/validation``, ``pkg/apis/batch/validation`` and
``k8s.io/apimachinery/pkg/util/validation`` of Kubernetes.
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from tests.kubernetes.objects import Object

_LABEL_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED: Final = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_ENVIRONMENT: Final = re.compile(r"[ -<>-~]+")
_QUANTITY: Final = re.compile(
    r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))((?:[KMGTPE]i)|[numkMGTPE]|[eE][+-]?[0-9]+|)"
)
_SUFFIXES: Final = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12),
    "P": Decimal(10**15), "E": Decimal(10**18), "Ki": Decimal(2**10), "Mi": Decimal(2**20),
    "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip
_EFFECTS: Final = (None, "", "NoSchedule", "PreferNoSchedule", "NoExecute")


def quantity(text: Any) -> Decimal:
    """``500m`` is 0.5, ``1Ki`` is 1024. Raises ValueError for what is no quantity."""
    found = _QUANTITY.fullmatch(str(text))
    if found is None:
        raise ValueError(f"{text!r} is not a quantity")
    number, suffix = found.groups()
    if suffix in _SUFFIXES:
        return Decimal(number) * _SUFFIXES[suffix]
    return Decimal(number + suffix)


def is_label(text: str) -> bool:
    """Whether it is a DNS label (RFC 1123): lower case, digits, dashes, 63 characters at most."""
    return len(text) <= 63 and _LABEL_NAME.fullmatch(text) is not None


def is_subdomain(text: str) -> bool:
    """Whether it is a DNS subdomain (RFC 1123): labels and dots, 253 characters at most."""
    return len(text) <= 253 and all(_LABEL_NAME.fullmatch(part) for part in text.split("."))


def of_metadata(metadata: Object, where: str) -> Iterator[str]:
    """Faults of labels and annotations; names are their object's matter."""
    for key, value in metadata.get("labels", {}).items():
        yield from _key(key, f"{where}.labels")
        yield from _label_value(value, f"{where}.labels[{key}]")
    for key in metadata.get("annotations", {}):
        yield from _key(key.lower(), f"{where}.annotations")


def _key(key: str, where: str) -> Iterator[str]:
    prefix, slash, name = key.rpartition("/")
    if (slash and not is_subdomain(prefix)) or len(name) > 63 or not _QUALIFIED.fullmatch(name):
        yield f"{where}: Invalid value: {key!r}: it is no qualified name"


def _label_value(value: str, where: str) -> Iterator[str]:
    if value and (len(value) > 63 or not _QUALIFIED.fullmatch(value)):
        yield f"{where}: Invalid value: {value!r}: a label is at most 63 of A-Z a-z 0-9 - _ ."


def of_job(job: Object) -> Iterator[str]:
    """Faults of a Job, those of its pods among them."""
    spec = job["spec"]
    yield from of_metadata(job["metadata"], "metadata")
    if not is_label(job["metadata"]["name"]):  # its pods have it as a label
        yield f"metadata.name: Invalid value: {job['metadata']['name']!r}: it is no DNS label"
    if "selector" in spec:
        yield "spec.selector: Forbidden: it is made by the server"
    if (spec.get("parallelism", 1), spec.get("completions", 1)) != (1, 1):
        yield "spec: the fake runs Jobs of one pod"
    for name in ("backoffLimit", "ttlSecondsAfterFinished", "activeDeadlineSeconds"):
        if spec.get(name, 0) < 0:
            yield f"spec.{name}: Invalid value: {spec[name]}: must be at least 0"
    template = spec["template"]
    if template["spec"].get("restartPolicy") not in ("Never", "OnFailure"):
        yield (
            'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'
        )
    yield from of_metadata(template.get("metadata", {}), "spec.template.metadata")
    yield from of_pod(template["spec"], "spec.template.spec")


def of_pod(spec: Object, where: str = "spec") -> Iterator[str]:
    """Faults of a pod's ``spec``."""
    if spec.get("restartPolicy") != "Never":
        yield f"{where}.restartPolicy: the fake starts no container again: say Never"
    if spec.get("terminationGracePeriodSeconds", 0) < 0:
        yield f"{where}.terminationGracePeriodSeconds: Invalid value: must be at least 0"
    account = spec.get("serviceAccountName")
    if account and not is_subdomain(account):
        yield f"{where}.serviceAccountName: Invalid value: {account!r}"
    for key, value in spec.get("nodeSelector", {}).items():
        yield from _key(key, f"{where}.nodeSelector")
        yield from _label_value(value, f"{where}.nodeSelector[{key}]")
    for index, toleration in enumerate(spec.get("tolerations", [])):
        yield from _toleration(toleration, f"{where}.tolerations[{index}]")
    volumes = [volume["name"] for volume in spec.get("volumes", [])]
    yield from _unique(volumes, f"{where}.volumes")
    yield from (f"{where}.volumes: Invalid value: {v!r}" for v in volumes if not is_label(v))
    for volume in spec.get("volumes", []):
        if len(volume) != 2:  # its name, and what it is
            yield f"{where}.volumes[{volume['name']}]: Required value: exactly one volume type"
    containers: list[Object] = []
    for key in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(key, [])):
            containers.append(container)
            yield from _container(container, set(volumes), f"{where}.{key}[{index}]")
    yield from _unique([container["name"] for container in containers], f"{where}.containers")


def _toleration(toleration: Object, where: str) -> Iterator[str]:
    operator = toleration.get("operator", "Equal")
    if operator not in ("Equal", "Exists"):
        yield f"{where}.operator: Unsupported value: {operator!r}"
    if operator == "Exists" and toleration.get("value"):
        yield f"{where}.operator: Invalid value: value must be empty when `operator` is 'Exists'"
    if not toleration.get("key") and operator != "Exists":
        yield f"{where}.operator: Invalid value: operator must be Exists when `key` is empty"
    if toleration.get("effect") not in _EFFECTS:
        yield f"{where}.effect: Unsupported value: {toleration['effect']!r}"
    if "tolerationSeconds" in toleration and toleration.get("effect") != "NoExecute":
        yield f"{where}.effect: Invalid value: must be NoExecute with tolerationSeconds"


def _container(container: Object, volumes: set[str], where: str) -> Iterator[str]:
    if not is_label(container["name"]):
        yield f"{where}.name: Invalid value: {container['name']!r}: it is no DNS label"
    if not container.get("image", "").strip():
        yield f"{where}.image: Required value"
    for variable in container.get("env", []):
        if not _ENVIRONMENT.fullmatch(variable["name"]):
            yield f"{where}.env: Invalid value: {variable['name']!r}"
        if "value" in variable and "valueFrom" in variable:
            yield f"{where}.env[{variable['name']}]: may not have both value and valueFrom"
    mounts = container.get("volumeMounts", [])
    yield from _unique([mount["mountPath"] for mount in mounts], f"{where}.volumeMounts")
    for mount in mounts:
        if mount["name"] not in volumes:
            yield f"{where}.volumeMounts: Not found: {mount['name']!r}"
        if ":" in mount["mountPath"]:
            yield f"{where}.volumeMounts: Invalid value: {mount['mountPath']!r}"
    yield from _resources(container.get("resources", {}), f"{where}.resources")


def _resources(resources: Object, where: str) -> Iterator[str]:
    amounts: dict[str, dict[str, Decimal]] = {"limits": {}, "requests": {}}
    for kind, found in amounts.items():
        for name, text in resources.get(kind, {}).items():
            try:
                found[name] = quantity(text)
            except ValueError as error:
                yield f"{where}.{kind}[{name}]: Invalid value: {error}"
                continue
            if found[name] < 0:
                yield f"{where}.{kind}[{name}]: Invalid value: must be at least 0"
    for name, request in amounts["requests"].items():
        if name in amounts["limits"] and request > amounts["limits"][name]:
            yield f"{where}.requests[{name}]: Invalid value: must be at most the limit"


def _unique(names: list[str], where: str) -> Iterator[str]:
    yield from (f"{where}: Duplicate value: {n!r}" for n in set(names) if names.count(n) > 1)
