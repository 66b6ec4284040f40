"""``docker.run``: an image, as a container beside the worker."""

from node_types.base import PlatformNodeType
from node_types.support.steps import ImageStep, Reported


class DockerStep(ImageStep):
    """The container to run."""


class DockerRun(PlatformNodeType[DockerStep, Reported]):
    """Runs an image to its end. The output is what it reports through Dagster Pipes, else null."""

    name = "docker.run"
    version = 1
    effects = "external"
    needs_worker = True
    secret_fields = frozenset({"env"})
    With = DockerStep
    Output = Reported
