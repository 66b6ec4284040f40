"""Runs in pods: one Kubernetes Job for each attempt, made by Dagster's own ``K8sRunLauncher``.

The launcher is as Dagster ships it. A run's first attempt is *launched* and the others are
*resumed*, for so it gives each a Job name of its own.
"""

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from dagster import DagsterRun
from dagster._core.launcher.base import LaunchRunContext, ResumeRunContext
from dagster._record import copy  # pyright: ignore[reportUnknownVariableType]
from dagster_k8s import K8sRunLauncher
from dagster_k8s.client import (
    DagsterK8sAPIRetryLimitExceeded,
    DagsterK8sUnrecoverableAPIError,
)
from dagster_k8s.job import (
    get_job_name_from_run_id,  # pyright: ignore[reportUnknownVariableType]
)
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from dynamic_jobs.placing.base import Health, Placed, PlacementFailed, PlacementRequest
from dynamic_jobs.placing.kubernetes_pod import pod_config
from dynamic_jobs.placing.kubernetes_state import job_health
from foundation.ids import RunId

_TAGS: Final = "dagster-k8s/"
_CONFIG: Final = f"{_TAGS}config"
_CONNECTIONS: Final = 64
"""Kept at most; there are as many as threads have asked for at the same time."""
_ANSWER_SECONDS: Final = 10.0
"""For a request, of which the client makes four where it only reads."""
_MISSING: Final = 404
_CONFLICT: Final = 409
_PASSING: Final = frozenset({401, 408, 429, 500, 502, 503, 504})
_QUOTA: Final = "exceeded quota"
"""What a 403 says that passes, when another run has ended."""


class KubernetesPlatform:
    """Places runs on the cluster that the launcher's configuration leads to."""

    lingers: ClassVar[bool] = True

    def __init__(self, launcher: K8sRunLauncher) -> None:
        self.launcher = launcher
        # The launcher has no way to ask for how its Jobs are, so its own client is asked.
        self._client: Any = launcher._api_client  # pyright: ignore[reportPrivateUsage]
        for api in (self._client.batch_api, self._client.core_api):
            # Else a few are kept, and most threads open a connection for each request.
            rest = api.api_client.rest_client
            rest.pool_manager.connection_pool_kw["maxsize"] = _CONNECTIONS
            rest.request = _bounded(rest.request)
        # The same for all runs, and milliseconds of work.
        self._installed = launcher.get_container_context_for_run(DagsterRun(job_name="any"))

    def locate(self, request: PlacementRequest) -> str:
        """The namespace: the tenant's, or that of the configuration."""
        return request.policy.kubernetes.namespace or self.launcher.job_namespace

    def place(self, request: PlacementRequest) -> None:
        run = self._run(request)
        with _as_placement_failed(request.run_id):
            try:
                if request.attempt == 1:
                    self.launcher.launch_run(LaunchRunContext(run, workspace=None))
                else:
                    number = request.attempt - 1
                    self.launcher.resume_run(ResumeRunContext(run, None, number))
            except DagsterK8sUnrecoverableAPIError as error:
                if _cause(error).status != _CONFLICT:  # it was asked for before
                    raise

    def health(self, placed: Placed) -> Health:
        with _as_placement_failed(placed.run_id):
            return job_health(self._client, job_name(placed), placed.where)

    def remove(self, placed: Placed) -> None:
        with _as_placement_failed(placed.run_id):
            try:
                # Dagster's delete_job would orphan a pod that comes after it has looked for them.
                self._client.batch_api.delete_namespaced_job(
                    job_name(placed), placed.where, propagation_policy="Background"
                )
            except ApiException as error:
                if error.status != _MISSING:
                    raise

    def _run(self, request: PlacementRequest) -> DagsterRun:
        """The run as the launcher is to see it: with our configuration, and no other.

        Whoever started it may have given it tags that the launcher would heed.
        """
        run = request.run
        origin = run.job_code_origin
        if origin is None:
            raise PlacementFailed("the run has no code pointer", run_id=run.run_id)
        namespace = request.policy.kubernetes.namespace
        repository = origin.repository_origin._replace(
            container_image=None,
            container_context={"k8s": {"namespace": namespace}} if namespace else None,
        )
        tags = {name: value for name, value in run.tags.items() if not name.startswith(_TAGS)}
        tags[_CONFIG] = json.dumps(pod_config(request, self._installed))
        return copy(run, tags=tags, job_code_origin=origin._replace(repository_origin=repository))


def job_name(placed: Placed) -> str:
    """The name that Dagster's launcher gives to the Job of this attempt."""
    return get_job_name_from_run_id(
        placed.run_id, resume_attempt_number=placed.attempt - 1 if placed.attempt > 1 else None
    )


def _bounded(request: Callable[..., Any]) -> Callable[..., Any]:
    """The client's way to send a request, which without a timeout waits for an answer for good."""

    def bounded(*given: Any, _request_timeout: Any = None, **more: Any) -> Any:
        return request(*given, _request_timeout=_request_timeout or _ANSWER_SECONDS, **more)

    return bounded


@contextmanager
def _as_placement_failed(run_id: RunId) -> Generator[None]:
    """What goes wrong with the cluster is a failed placement. The rest is not: Dagster's launcher
    writes to our database, too."""
    try:
        yield
    except PlacementFailed:
        raise
    except DagsterK8sUnrecoverableAPIError as error:
        raise _failed(_cause(error), run_id) from error
    except (ApiException, HTTPError) as error:
        raise _failed(error, run_id) from error
    except DagsterK8sAPIRetryLimitExceeded as error:
        raise PlacementFailed(
            f"the Kubernetes API does not answer: {_cause(error)}",
            passing=True,
            run_id=run_id,
        ) from error


def _cause(error: Any) -> Any:
    return error.k8s_api_exception


def _failed(error: Any, run_id: RunId) -> PlacementFailed:
    if not isinstance(error, ApiException):
        message = f"the Kubernetes API cannot be reached: {error}"
        return PlacementFailed(message, passing=True, run_id=run_id)
    said = _message(error)
    passing = error.status in _PASSING or _QUOTA in said
    return PlacementFailed(f"the Kubernetes API refused: {said}", passing=passing, run_id=run_id)


def _message(error: Any) -> str:
    """What the API's answer says; its reason where there is no answer of the API's."""
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, TypeError, KeyError):
        return f"{error.status} {error.reason}"
