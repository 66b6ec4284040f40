"""Where the runs of a graph are executed, and what they may use there: a part of its document."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from foundation.quantity import Cpu, Memory, parse_quantity
from graph_defs.part import Part

Isolation: TypeAlias = Literal["warm", "process", "docker", "kubernetes"]
ISOLATIONS: Final[tuple[Isolation, ...]] = ("warm", "process", "docker", "kubernetes")
OnLost: TypeAlias = Literal["resume", "fail"]

_GOES_WITH: Final[dict[str, tuple[Isolation, ...]]] = {
    "resources": ("docker", "kubernetes"),
    "kubernetes": ("kubernetes",),
}

SUBDOMAIN: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
"""RFC 1123, as Kubernetes has it for names."""
LABEL: Final = rf"({SUBDOMAIN}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?"
LABEL_VALUE: Final = r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"

ServiceAccount = Annotated[str, Field(max_length=253, pattern=f"^{SUBDOMAIN}$")]
LabelKey = Annotated[str, Field(max_length=316, pattern=f"^{LABEL}$")]
LabelValue = Annotated[str, Field(max_length=63, pattern=f"^{LABEL_VALUE}$")]


class Resources(Part):
    """What one run may use: it is given as much, and gets no more."""

    cpu: Cpu | None = Field(None, description="CPUs, such as `500m` or `2`.")
    memory: Memory | None = Field(None, description="Memory in bytes, such as `512Mi` or `2Gi`.")


class Toleration(Part):
    """A taint of cluster nodes that the run's pod may be scheduled on all the same."""

    key: LabelKey = Field(description="The taint's key.")
    operator: Literal["Exists", "Equal"] = Field(
        "Equal", description="Whether the taint need only exist, or have this `value`."
    )
    value: LabelValue | None = Field(None, description="The taint's value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="The taint's effect; without it, any."
    )

    @model_validator(mode="after")
    def _value_to_equal(self) -> Self:
        if (self.operator == "Equal") is (self.value is None):
            raise PydanticCustomError(
                "conflicting_fields",
                "`operator: {operator}` {takes} `value`.",
                {
                    "operator": self.operator,
                    "takes": "needs a" if self.value is None else "goes without a",
                    "hint": "`Equal` compares the taint's value, `Exists` does not look at it.",
                },
            )
        return self


class KubernetesPlacement(Part):
    """Where on the cluster the run's pod goes."""

    service_account: ServiceAccount | None = Field(
        None, description="The service account of the run's pod; without it, the installation's."
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default={}, max_length=32, description="Labels that the cluster node must have."
    )
    tolerations: list[Toleration] = Field(
        default=[], max_length=32, description="Taints that the cluster node may have."
    )


class Placement(Part):
    """Where the runs of a graph are executed."""

    isolation: Isolation = Field(
        "warm",
        description="What each run gets to itself: nothing, for it starts within milliseconds on a "
        "`warm` worker that others share; a `process` of its own there; or a `docker` container or "
        "a `kubernetes` pod of the installation's image.",
    )
    on_lost: OnLost = Field(
        "resume",
        description="What becomes of a run that was under way on a worker, process, container or "
        "pod which is lost: others `resume` it where it was, or it has to `fail`.",
    )
    resources: Resources | None = Field(
        None, description="What the run's container or pod may use; without it, what is usual."
    )
    kubernetes: KubernetesPlacement | None = Field(
        None, description="Where on the cluster the run's pod goes."
    )

    @field_validator("resources", "kubernetes")
    @classmethod
    def _fits_isolation(cls, given: Part | None, info: ValidationInfo) -> Part | None:
        isolation, name = info.data.get("isolation"), str(info.field_name)
        if given is None or isolation is None or isolation in _GOES_WITH[name]:
            return given
        raise PydanticCustomError(
            "conflicting_fields",
            "`{name}` goes with `isolation: {needed}`, and this is `{isolation}`.",
            {
                "name": name,
                "needed": "` or `".join(_GOES_WITH[name]),
                "isolation": isolation,
                "hint": f"Remove `{name}`, or choose that isolation.",
            },
        )

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Placement":
        """What a published document says, and else the defaults."""
        said = {name: document[name] for name in Placement.model_fields if name in document}
        return Placement.model_validate(said)


def amount(quantity: str | None) -> Decimal | None:
    """The CPUs, or bytes, that a quantity stands for."""
    return None if quantity is None else parse_quantity(quantity)
