"""Runs in containers: one for each attempt, made by Dagster's own ``DockerRunLauncher``.

The launcher is as Dagster ships it, so the socket is what ``DOCKER_HOST`` names. All workers of an
installation have to name the same one: whichever of them looks has to see what another has started.
"""

import math
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Final, cast

import docker
from dagster import DagsterRun
from dagster._core.launcher.base import LaunchRunContext, ResumeRunContext
from dagster._record import copy  # pyright: ignore[reportUnknownVariableType]
from dagster_docker import DockerRunLauncher
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.utils import parse_bytes
from requests.exceptions import RequestException

from dynamic_jobs.placing.base import Health, Placed, PlacementFailed, PlacementRequest
from dynamic_jobs.platforms.base import beside, label
from dynamic_jobs.platforms.containers import ANSWER_SECONDS, LOG_FILES, remove
from foundation.ids import RunId
from foundation.quantity import parse_quantity
from graph_defs.placement import Resources

USER: Final = "10001:10001"
"""Of the installation's image."""
STATE: Final = "/var/lib/graphwright"
STOP_SECONDS: Final = 25
"""Time that the process has to hand its run back: ``drain_seconds`` and a little."""

_ENDED: Final = frozenset({"created", "exited", "dead", "stopped"})
_CONFLICT: Final = 409
_PASSING: Final = frozenset({_CONFLICT, 429})
_NANO: Final = 10**9
_PIDS: Final = 1_024
_TMPFS: Final = "rw,nosuid,nodev,mode=1777"


class DockerPlatform:
    """Places runs in containers of the image that the launcher's configuration names."""

    lingers: ClassVar[bool] = False

    def __init__(self, launcher: DockerRunLauncher) -> None:
        self.launcher = launcher
        self._ending: set[Placed] = set()
        """What is being ended beside: it is told once, for a second SIGTERM leaves it no time."""

    def locate(self, request: PlacementRequest) -> str:
        return "docker"

    def place(self, request: PlacementRequest) -> None:
        run = self._run(request)
        with _as_placement_failed(request.run_id):
            try:
                if request.resumes:
                    self.launcher.resume_run(ResumeRunContext(run, None, request.attempt - 1))
                else:
                    self.launcher.launch_run(LaunchRunContext(run, workspace=None))
            except APIError:
                # The name is taken, perhaps: Docker says so by 409, podman by 500.
                with _container(request.run_id, request.attempt) as container:
                    if container is None:
                        raise
                    if container.status == "created":
                        container.start()  # whoever was asked before did not come to it

    def health(self, placed: Placed) -> Health:
        with (
            _as_placement_failed(placed.run_id),
            _container(placed.run_id, placed.attempt) as container,
        ):
            if container is None:
                return Health("gone", "there is no such container")
            state: dict[str, Any] = container.attrs["State"]
            if container.status == "created":
                return Health("starting")
            if container.status not in ("exited", "dead", "stopped"):
                return Health("running")
            if state.get("ExitCode") == 0 and container.status != "dead":
                return Health("finished")
            memory = ": it used more memory than it had" if state.get("OOMKilled") else ""
            code = state.get("ExitCode")
            return Health("lost", f"the container ended with exit code {code}{memory}")

    def remove(self, placed: Placed) -> None:
        with (
            _as_placement_failed(placed.run_id),
            _container(placed.run_id, placed.attempt) as container,
        ):
            if container is None:
                return
            if container.status in _ENDED:
                remove(_client_of(container), [str(container.id)])
            elif placed not in self._ending:
                beside(lambda: self._end(placed), f"container {container.name}")

    def _end(self, placed: Placed) -> None:
        """Have it stopped within its time, else killed, and remove it."""
        self._ending.add(placed)
        try:
            with _container(placed.run_id, placed.attempt) as container:
                if container is not None:
                    with suppress(APIError, RequestException):  # it is killed, then
                        container.stop(timeout=STOP_SECONDS)
                    remove(_client_of(container), [str(container.id)])
        finally:
            self._ending.discard(placed)

    def _run(self, request: PlacementRequest) -> DagsterRun:
        """The run as the launcher is to see it: with our container context, and no other."""
        origin = request.run.job_code_origin
        if origin is None:
            raise PlacementFailed("the run has no code pointer", run_id=request.run_id)
        configured = cast("dict[str, Any]", self.launcher.container_kwargs)
        options = {"log_config": LOG_FILES, **configured, **container_options(request, configured)}
        context = {"docker": {"container_kwargs": options}}
        repository = origin.repository_origin._replace(
            container_image=None, container_context=context
        )
        code = origin._replace(repository_origin=repository)
        return copy(request.run, job_code_origin=code)


def container_options(request: PlacementRequest, configured: dict[str, Any]) -> dict[str, Any]:
    """What each container has whatever the configuration says: limits, labels and no privileges."""
    options: dict[str, Any] = {
        "name": container_name(request.run_id, request.attempt),
        "entrypoint": ["graphwright", "execute-run"],
        "labels": {
            **_labels(configured.get("labels")),
            "graphwright.dev/run": request.run_id,
            "graphwright.dev/tenant": label(request.tenant),
            "graphwright.dev/graph": label(request.graph_name),
        },
        "user": USER,
        "read_only": True,
        "privileged": False,
        "cap_add": [],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "tmpfs": {"/tmp": _TMPFS, STATE: _TMPFS},  # noqa: S108 - the container's
        "pids_limit": _PIDS,
        "auto_remove": False,
    }
    asked, policy = request.placement.resources or Resources.model_validate({}), request.policy
    cpu = _limit(asked.cpu, policy.max_cpu, _NANO, configured.get("nano_cpus"))
    if cpu is not None:
        options["nano_cpus"] = cpu
    memory = _limit(asked.memory, policy.max_memory, 1, configured.get("mem_limit"))
    if memory is not None:
        options |= {"mem_limit": memory, "memswap_limit": memory}
    return options


def _limit(asked: str | None, most: str | None, unit: int, configured: Any) -> int | None:
    """What the graph asks for, else the tenant's bound, if no less is configured; else None, for
    what is configured holds."""
    amount = asked or most
    if amount is None:
        return None
    limit = math.ceil(parse_quantity(amount) * unit)  # 0 would be no limit
    usual = 0 if asked or not configured else int(parse_bytes(configured))
    return min(limit, usual) if usual > 0 else limit


def container_name(run_id: RunId, attempt: int) -> str:
    """Each attempt's own, so that it is started once however often it is asked for."""
    return f"graphwright-{run_id}-{attempt}"


def _client_of(container: Container) -> docker.DockerClient:
    return cast("docker.DockerClient", container.client)


def _labels(configured: Any) -> dict[str, str]:
    """As Docker's client takes them: by name, or names alone."""
    if isinstance(configured, list):
        return dict.fromkeys(cast("list[str]", configured), "")
    return dict(configured or {})


@contextmanager
def _container(run_id: RunId, attempt: int) -> Generator[Container | None]:
    client = docker.from_env(timeout=ANSWER_SECONDS)
    try:
        try:
            found = client.containers.get(container_name(run_id, attempt))
        except APIError as error:
            # While it is being removed, podman may say so by 500.
            if not (isinstance(error, NotFound) or "no such container" in str(error.explanation)):
                raise
            found = None
        yield found
    finally:
        client.close()


@contextmanager
def _as_placement_failed(run_id: RunId) -> Generator[None]:
    try:
        yield
    except ImageNotFound as error:
        raise PlacementFailed(
            f"there is no such image: {error.explanation}", run_id=run_id
        ) from error
    except APIError as error:
        code = error.status_code
        passing = code is None or code in _PASSING or code >= 500
        told = f"Docker refused the container: {error.explanation}"
        raise PlacementFailed(told, passing=passing, run_id=run_id) from error
    except (DockerException, RequestException) as error:
        raise PlacementFailed(
            f"the Docker socket does not answer: {error}", passing=True, run_id=run_id
        ) from error
