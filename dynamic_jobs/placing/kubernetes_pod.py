"""What a run's pod is: the part that graph, tenant and our own rules say of its manifest.

Dagster's launcher makes the manifest of its configuration, which is the operator's, and of this,
which it finds in a tag of the run (`container and pod configuration
<https://docs.dagster.io/deployment/oss/deployment-options/kubernetes/customizing-your-deployment>`_).
Where both say something of the same field, this holds; lists and mappings are joined.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias, cast

from dagster_k8s.container_context import K8sContainerContext
from kubernetes.utils.quantity import (
    parse_quantity,  # pyright: ignore[reportUnknownVariableType]
)

from dynamic_jobs.placing.base import PlacementRequest
from graph_defs.placement import LABEL_VALUE, KubernetesPlacement, Resources

COMMAND: Final = ("graphwright", "execute-run")
STATE: Final = "/var/lib/graphwright"
"""The state folder of our image, which need not outlive the process."""
WRITABLE: Final[Mapping[str, str]] = {"tmp": "/tmp", "state": STATE}  # noqa: S108
"""Empty folders that a pod has for itself, for its root cannot be written."""
FOLDER_BYTES: Final = "1Gi"
"""Of each: they are on the cluster node's disk, and a pod that writes more is evicted."""
TENANT: Final = "graphwright.dev/tenant"
GRAPH: Final = "graphwright.dev/graph"
ATTEMPT: Final = "graphwright.dev/attempt"
TTL_SECONDS: Final = 3_600
"""A Job that has finished stays so long, for its log to be read, unless the operator says."""

_LABEL_VALUE: Final = re.compile(LABEL_VALUE)
_LABEL_LENGTH: Final = 63
_DIGEST_LENGTH: Final = 12

Config: TypeAlias = dict[str, Any]


def pod_config(request: PlacementRequest, installed: K8sContainerContext) -> Config:
    """What the tag ``dagster-k8s/config`` holds for this attempt at a run.

    ``installed`` is what the launcher's configuration comes to, without this.
    """
    operators = installed.run_k8s_config
    mounts: list[Mapping[str, Any]] = operators.container_config.get("volume_mounts", [])
    mounted = {str(mount.get("mount_path", "")).rstrip("/") for mount in mounts}
    folders = {name: path for name, path in WRITABLE.items() if path not in mounted}
    labels = {
        **request.policy.kubernetes.labels,
        TENANT: label_value(request.tenant),
        GRAPH: label_value(request.graph_name),
        ATTEMPT: str(request.attempt),
    }
    return {
        "container_config": {
            "command": [*COMMAND],
            "security_context": {
                "allow_privilege_escalation": False,
                "privileged": False,
                "read_only_root_filesystem": True,
                "run_as_non_root": True,
                "capabilities": {"drop": ["ALL"]},
                "seccomp_profile": {"type": "RuntimeDefault"},
            },
            "volume_mounts": [{"name": n, "mount_path": path} for n, path in folders.items()],
            "resources": _resources(request, operators.container_config.get("resources") or {}),
        },
        "pod_spec_config": {
            "automount_service_account_token": False,
            "enable_service_links": False,
            "security_context": {
                "run_as_non_root": True,
                "seccomp_profile": {"type": "RuntimeDefault"},
            },
            "volumes": [
                {"name": name, "empty_dir": {"size_limit": FOLDER_BYTES}} for name in folders
            ],
            **_where(request),
        },
        "pod_template_spec_metadata": {"labels": labels},
        "job_metadata": {"labels": labels},
        "job_spec_config": {
            "backoff_limit": 0,  # whether it is tried again is for the queue to say
            "ttl_seconds_after_finished": operators.job_spec_config.get(
                "ttl_seconds_after_finished", TTL_SECONDS
            ),
        },
    }


def _resources(request: PlacementRequest, operators: Mapping[str, Any]) -> Config:
    """What the graph asks for; else what the operator's configuration says, within the tenant's
    bounds, which hold where neither says anything."""
    asked, policy = request.placement.resources or Resources.model_validate({}), request.policy
    usual: Config = operators.get("requests") or {}
    most_usual: Config = operators.get("limits") or {}
    requests: Config = {}
    limits: Config = {}
    for name, amount, most in (
        ("cpu", asked.cpu, policy.max_cpu),
        ("memory", asked.memory, policy.max_memory),
    ):
        if amount is not None:
            requests[name] = limits[name] = amount
        elif most is not None:
            limits[name] = _least(most, most_usual.get(name))
            if name in usual:
                requests[name] = _least(limits[name], usual[name])
    return {"requests": requests, "limits": limits}


def _least(most: Any, amount: Any) -> Any:
    quantity = cast("Any", parse_quantity)  # the client's: operators may write what graphs may not
    return most if amount is None or quantity(amount) > quantity(most) else amount


def _where(request: PlacementRequest) -> Config:
    """Which account the pod has, and which nodes it may go to."""
    asked = request.placement.kubernetes or KubernetesPlacement(service_account=None)
    where: Config = {}
    if asked.service_account is not None:
        where["service_account_name"] = asked.service_account
    if selector := {**asked.node_selector, **request.policy.kubernetes.required_node_selector}:
        where["node_selector"] = selector
    if asked.tolerations:
        where["tolerations"] = [t.model_dump(exclude_none=True) for t in asked.tolerations]
    return where


def label_value(text: str) -> str:
    """``text`` where it may be a label's value, else what is left of it with a digest of all."""
    if text and len(text) <= _LABEL_LENGTH and _LABEL_VALUE.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]
    left = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[: _LABEL_LENGTH - _DIGEST_LENGTH - 1]
    return f"{left.strip('-_.')}-{digest}".strip("-")
