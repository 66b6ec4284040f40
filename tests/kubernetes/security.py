"""The Pod Security Standard ``restricted``, which a namespace may enforce.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from collections.abc import Iterator
from typing import Any, Final

from tests.kubernetes.objects import Object

ENFORCE: Final = "pod-security.kubernetes.io/enforce"
"""The label of a namespace that says which standard its pods must meet."""

_VOLUMES: Final = frozenset(
    {
        "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
        "projected", "secret",
    }
)  # fmt: skip


def violations(spec: Object) -> list[str]:
    """How a pod's ``spec`` falls short of ``restricted``."""
    return [*_of_pod(spec), *(text for each in _containers(spec) for text in _of(each, spec))]


def _containers(spec: Object) -> list[Object]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def _of_pod(spec: Object) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield f"host namespaces ({name}=true)"
    for volume in spec.get("volumes", []):
        if not _VOLUMES & volume.keys():
            yield f'restricted volume types (volume "{volume["name"]}")'


def _of(container: Object, spec: Object) -> Iterator[str]:
    def said(name: str) -> Any:
        return container.get("securityContext", {}).get(name)

    def of_either(name: str) -> Any:
        own = said(name)
        return spec.get("securityContext", {}).get(name) if own is None else own

    name = container["name"]
    capabilities: Object = said("capabilities") or {}
    if said("privileged"):
        yield f'privileged (container "{name}")'
    if said("allowPrivilegeEscalation") is not False:
        yield f'allowPrivilegeEscalation != false (container "{name}")'
    if "ALL" not in capabilities.get("drop", []):
        yield f'unrestricted capabilities (container "{name}" must drop ALL)'
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f'unrestricted capabilities (container "{name}" adds some)'
    if of_either("runAsNonRoot") is not True:
        yield f'runAsNonRoot != true (container "{name}")'
    if of_either("runAsUser") == 0:
        yield f'runAsUser=0 (container "{name}")'
    if (of_either("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield f'seccompProfile (container "{name}" must say RuntimeDefault or Localhost)'
    if any("hostPort" in port for port in container.get("ports", [])):
        yield f'hostPort (container "{name}")'
