"""``docker.run``: a container, through whatever Docker-compatible socket ``DOCKER_HOST`` names."""

import math
from typing import Any, Final, cast

from dagster_docker.pipes import PipesDockerClient, PipesDockerLogsMessageReader
from dagster_pipes import DagsterPipesError
from docker.errors import APIError, DockerException, ImageNotFound
from pydantic import JsonValue
from requests.exceptions import RequestException

from dynamic_jobs.platforms.base import (
    PlatformAway,
    Step,
    StepFailed,
    StepNotAllowed,
    StepNotStarted,
)
from dynamic_jobs.platforms.containers import LOG_FILES, remove_all
from dynamic_jobs.platforms.docker_container import StepContainer
from dynamic_jobs.platforms.images import bounded
from dynamic_jobs.platforms.reports import Reports
from dynamic_jobs.platforms.session import BoundedEnvInjector, Relay, extras, pipes_context
from foundation.quantity import parse_quantity
from graph_defs.step_policy import DockerSteps
from node_types.base import NodeError
from node_types.docker_run import DockerStep

_AWAY: Final = "the Docker socket does not answer"
_PIDS: Final = 512
_NANO: Final = 10**9


class _Reader(Relay, PipesDockerLogsMessageReader):
    """Has the container followed where Pipes' client would read what it has written."""

    def consume_docker_logs(self, container: Any) -> None:
        cast("StepContainer", container).follow()


class _Client(PipesDockerClient):
    """Pipes' client, that works on a container of ours."""

    def __init__(self, step: Step, reports: Reports) -> None:
        super().__init__(context_injector=BoundedEnvInjector(), message_reader=_Reader(reports))
        self._step = step
        self._reports = reports
        self.container: StepContainer | None = None

    def _create_container(self, *given: Any, **named: Any) -> Any:
        made = cast("Any", super())._create_container(*given, **named)
        self.container = StepContainer(made, self._step, self._reports)
        return self.container


class DockerPlatform:
    """Containers without privileges, of a user that is not root, with nothing of the worker's."""

    def run(self, given: DockerStep, step: Step) -> JsonValue:
        policy = step.policy.docker
        if policy is None:
            raise StepNotAllowed("the operator does not allow `docker.run` to this tenant")
        given = bounded(given, policy)
        reports = Reports(step.context, step.limits)
        client = _Client(step, reports)
        try:
            remove_all(step.labels)  # a worker that was killed has left it
            client.run(
                context=pipes_context(step),
                image=given.image,
                command=given.args or None,
                env=given.env,
                extras=extras(step, given.input),
                container_kwargs=container_options(given, step, policy),
            )
        except DagsterPipesError as error:
            raise _failed(client.container, reports) from error
        except ImageNotFound as error:
            raise StepNotStarted(f"there is no image {given.image}") from error
        except (DockerException, RequestException) as error:
            raise _refused(client.container, error) from error
        finally:
            if client.container is not None:
                client.container.remove()
        return reports.result()


def container_options(given: DockerStep, step: Step, policy: DockerSteps) -> dict[str, Any]:
    """What the container gets besides its image, command and environment."""
    memory = math.ceil(parse_quantity(given.memory))  # 0 would be no limit
    return {
        **({"entrypoint": given.command} if given.command else {}),
        "labels": step.labels,
        "user": f"{given.user}:{given.user}",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "read_only": True,
        "tmpfs": {"/tmp": "rw,nosuid,nodev,size=64m,mode=1777"},  # noqa: S108 - the container's
        "network_mode": policy.network,
        "nano_cpus": math.ceil(parse_quantity(given.cpu) * _NANO),
        "mem_limit": memory,
        "memswap_limit": memory,
        "pids_limit": _PIDS,
        "log_config": LOG_FILES,
    }


def _refused(container: StepContainer | None, error: Exception) -> NodeError:
    hint = str(getattr(error, "explanation", error))[:500]
    if container is not None and container.started:
        return PlatformAway("the container was lost sight of", hint=hint)
    if isinstance(error, APIError):
        return StepNotStarted("the container could not be started", hint=hint)
    return PlatformAway(_AWAY, hint=hint)


def _failed(container: StepContainer | None, reports: Reports) -> StepFailed:
    assert container is not None  # its exit code is what failed
    told = f"the container ended with exit code {container.code}"
    if container.used_too_much_memory():
        return StepFailed(f"{told}: it used more memory than it had", hint="Raise `memory`.")
    return StepFailed(f"{told}{f': {reports.error}' if reports.error else ''}")
