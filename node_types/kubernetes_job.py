"""``kubernetes.job``: an image, as a pod on a cluster."""

from pydantic import Field

from node_types.base import PlatformNodeType
from node_types.support.steps import ImageStep, Reported


class KubernetesStep(ImageStep):
    """The pod to run."""

    service_account: str | None = Field(
        default=None,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        description="One that the operator allows; the pod does not get its token.",
    )


class KubernetesJob(PlatformNodeType[KubernetesStep, Reported]):
    """Runs an image to its end. The output is what it reports through Dagster Pipes, else null."""

    name = "kubernetes.job"
    version = 1
    effects = "external"
    needs_worker = True
    secret_fields = frozenset({"env"})
    With = KubernetesStep
    Output = Reported
