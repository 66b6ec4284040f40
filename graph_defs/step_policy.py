"""Which platforms the steps of a tenant may run on, and with what: set by the operator, checked
each time that a step is about to start there. What is not named is not allowed."""

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from foundation.quantity import Cpu, Memory
from graph_defs.images import check_pattern, image_allowed
from graph_defs.part import Part
from graph_defs.placement import LabelKey, LabelValue, ServiceAccount


def _check_image_pattern(pattern: str) -> str:
    try:
        check_pattern(pattern)
    except ValueError as error:
        raise PydanticCustomError(
            "bad_value",
            "`{pattern}` is no pattern of images: {why}.",
            {
                "pattern": pattern,
                "why": str(error),
                "hint": "Write `[registry/]repository[:tag][@digest]`, with `*` in repository or "
                "tag: `registry.example.org/team/*`.",
            },
        ) from error
    return pattern


def _check_network(name: str) -> str:
    if name == "host":
        raise PydanticCustomError(
            "bad_value",
            "Steps may not have the network of the host.",
            {"hint": "Name a Docker network made for steps, or `none`."},
        )
    return name


ImagePattern = Annotated[
    str, Field(min_length=1, max_length=512), AfterValidator(_check_image_pattern)
]


class ImageSteps(Part):
    """Steps that are images: which, and how large."""

    images: list[ImagePattern] = Field(
        default=[],
        description="Images by registry (else Docker Hub), repository and tag (else any); `*` is "
        "any characters but `/`, and `/*` at the end all below: `registry.example.org/team/*`.",
    )
    max_cpu: Cpu = Field(default="1", description="CPUs of one step.")
    max_memory: Memory = Field(default="1Gi", description="Memory of one step.")

    def allows(self, image: str) -> bool:
        """Whether a step may run this image."""
        return image_allowed(image, self.images)


class DockerSteps(ImageSteps):
    """`docker.run`."""

    network: Annotated[str, AfterValidator(_check_network)] = Field(
        default="none",
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="The Docker network of each step, by its name; with `none` it has no network.",
    )


class KubernetesSteps(ImageSteps):
    """`kubernetes.job`."""

    namespace: str = Field(
        max_length=63,
        pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="Where their pods are: one that holds nothing else.",
    )
    service_accounts: list[ServiceAccount] = Field(
        default=[], description="Which a node may name. No pod gets its token."
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default={}, description="Labels that the cluster node of every pod must have."
    )


class AwsSteps(Part):
    """`aws.lambda` and `aws.batch`."""

    regions: list[str] = Field(default=[], description="Regions that nodes may name.")
    roles: list[str] = Field(default=[], description="ARNs of roles that nodes may assume.")


class StepPolicy(Part):
    """Bounds of what a tenant's nodes may have done elsewhere."""

    docker: DockerSteps | None = Field(
        default=None, description="Without it, `docker.run` is refused."
    )
    kubernetes: KubernetesSteps | None = Field(
        default=None, description="Without it, `kubernetes.job` is refused."
    )
    aws: AwsSteps | None = Field(
        default=None, description="Without it, `aws.lambda` and `aws.batch` are refused."
    )
