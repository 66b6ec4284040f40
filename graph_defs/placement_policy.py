"""Which placements a tenant may use: set by the operator, checked when a graph is published and
again when a run of it is placed."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Final

from pydantic import Field

from foundation.errors import Fault
from foundation.quantity import Cpu, Memory
from graph_defs.part import Part
from graph_defs.placement import (
    Isolation,
    LabelKey,
    LabelValue,
    Placement,
    ServiceAccount,
    amount,
)
from graph_defs.step_policy import StepPolicy

Namespace = Annotated[str, Field(max_length=63, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]


class KubernetesPolicy(Part):
    """What pods of the tenant's runs may ask for, and what all of them get."""

    namespace: Namespace | None = Field(
        None,
        description="Where their Jobs are; without it, where the launcher's configuration says.",
    )
    service_accounts: list[ServiceAccount] = Field(
        default=[], description="Which a graph may name."
    )
    node_selector: dict[LabelKey, list[LabelValue]] = Field(
        default={}, description="Which labels and values a graph may select cluster nodes by."
    )
    tolerations: list[LabelKey] = Field(
        default=[], description="Keys of taints that a graph may tolerate."
    )
    required_node_selector: dict[LabelKey, LabelValue] = Field(
        default={}, description="Labels that cluster nodes must have for every pod of the tenant."
    )
    labels: dict[LabelKey, LabelValue] = Field(
        default={}, description="Labels that every pod of the tenant gets."
    )


class PlacementPolicy(Part):
    """Bounds of what a tenant's graphs may ask for outside of a warm worker."""

    max_cpu: Cpu | None = Field(None, description="CPUs of one run; without it, no bound.")
    max_memory: Memory | None = Field(None, description="Memory of one run; without it, no bound.")
    kubernetes: KubernetesPolicy = Field(
        default=KubernetesPolicy.model_validate({}), description="For `isolation: kubernetes`."
    )
    steps: StepPolicy = Field(
        default=StepPolicy.model_validate({}),
        description="What nodes may have done in images and clouds.",
    )


ASK_OPERATOR: Final = "Ask the operator of this installation to allow it, or choose another."


def breaches(
    placement: Placement, isolations: Sequence[Isolation], policy: PlacementPolicy
) -> list[Fault]:
    """What of a placement the tenant may not use; nothing, if it may all."""
    if placement.isolation not in isolations:
        allowed = ", ".join(f"`{each}`" for each in isolations) or "none"
        return [
            Fault(
                "/isolation",
                "isolation_not_allowed",
                f"This tenant's runs may not have `isolation: {placement.isolation}`; "
                f"they may have {allowed}.",
                ASK_OPERATOR,
            )
        ]
    return [*_too_large(placement, policy), *_on_cluster(placement, policy.kubernetes)]


def _too_large(placement: Placement, policy: PlacementPolicy) -> Iterator[Fault]:
    asked = placement.resources
    if placement.isolation not in ("docker", "kubernetes"):
        return
    for name, most in (("cpu", policy.max_cpu), ("memory", policy.max_memory)):
        wanted = None if asked is None else getattr(asked, name)
        if most is None or wanted is None:
            continue
        bound, value = amount(most), amount(wanted)
        assert bound is not None
        assert value is not None
        if value > bound:
            yield Fault(
                f"/resources/{name}",
                "resources_not_allowed",
                f"A run of this tenant may have {most} of {name}, and this asks for {wanted}.",
                f"Ask for at most {most}.",
            )


def _on_cluster(placement: Placement, policy: KubernetesPolicy) -> Iterator[Fault]:
    asked = placement.kubernetes
    if asked is None:
        return
    account = asked.service_account
    if account is not None and account not in policy.service_accounts:
        yield Fault(
            "/kubernetes/service_account",
            "service_account_not_allowed",
            f"Runs of this tenant may not use the service account `{account}`.",
            ASK_OPERATOR,
        )
    for key, value in asked.node_selector.items():
        required = policy.required_node_selector.get(key)
        if required == value:
            continue
        if required is not None or value not in policy.node_selector.get(key, ()):
            yield Fault(
                f"/kubernetes/node_selector/{key.replace('~', '~0').replace('/', '~1')}",
                "node_selector_not_allowed",
                f"Runs of this tenant may not select cluster nodes by `{key}: {value}`.",
                ASK_OPERATOR,
            )
    for place, toleration in enumerate(asked.tolerations):
        if toleration.key not in policy.tolerations:
            yield Fault(
                f"/kubernetes/tolerations/{place}",
                "toleration_not_allowed",
                f"Runs of this tenant may not tolerate the taint `{toleration.key}`.",
                ASK_OPERATOR,
            )
