"""How a Job and its pod are, and why, in the words of the cluster."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from dagster_k8s.client import KubernetesWaitingReasons as Waiting

from dynamic_jobs.placing.base import Health

_BROKEN: Final = frozenset(
    {
        Waiting.ErrImagePull,
        Waiting.ImagePullBackOff,
        Waiting.CrashLoopBackOff,
        Waiting.RunContainerError,
        "InvalidImageName",
        "ErrImageNeverPull",
    }
)
"""Why a container waits that Dagster's client waits for no longer either."""
_RETRY_SECONDS: Final = 1.0
_OVERDUE: Final = timedelta(seconds=30)
"""So long after a pod should have been gone, clocks aside, its node is taken for dead: else its run
would wait for as long as the node does."""


def job_health(client: Any, name: str, namespace: str) -> Health:
    """The health of the Job ``name``. ``client`` is a ``DagsterKubernetesClient``.

    Its pod says it, with one request, as long as there is one.
    """
    pods: list[Any] = client.get_pods_in_job(name, namespace)
    if pods:
        return _pod_health(pods[-1])
    status = client.get_job_status(name, namespace, wait_time_between_attempts=_RETRY_SECONDS)
    if status is None:
        return Health("gone", f"the Job {namespace}/{name} is not there")
    if status.succeeded:
        return Health("finished")
    if status.failed and not status.active:
        return Health("lost", "; ".join(["its pod was deleted", *_conditions(status)]))
    return Health("starting", _events(client, name, namespace))


def _pod_health(pod: Any) -> Health:
    phase = pod.status.phase
    if phase == "Succeeded":
        return Health("finished")
    if phase == "Failed":
        return Health("lost", "; ".join(_ends(pod)))
    goes_by = pod.metadata.deletion_timestamp  # when its time to end is over
    if goes_by is not None and datetime.now(UTC) > goes_by + _OVERDUE:
        return Health("lost", f"its node {pod.spec.node_name} has not ended it")
    if phase == "Running":
        return Health("running")
    for container in _containers(pod):
        waiting = container.state.waiting if container.state else None
        if waiting is not None and waiting.message:
            condition = "lost" if waiting.reason in _BROKEN else "starting"
            return Health(condition, f"{waiting.reason}: {waiting.message}")
    conditions: list[Any] = pod.status.conditions or []
    unmet = [each for each in conditions if each.status == "False" and each.message]
    return Health("starting", "; ".join(f"{each.reason}: {each.message}" for each in unmet))


def _containers(pod: Any) -> Sequence[Any]:
    return [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]


def _ends(pod: Any) -> Iterator[str]:
    """How the containers ended that did not end well."""
    if pod.status.reason:  # such as Evicted
        yield f"{pod.status.reason}: {pod.status.message or 'no message'}"
    for container in _containers(pod):
        ended = container.state.terminated if container.state else None
        if ended is not None and ended.exit_code:
            yield f"{ended.reason or 'Error'}: exit code {ended.exit_code}"


def _conditions(status: Any) -> Iterator[str]:
    conditions: list[Any] = status.conditions or []
    for each in conditions:
        if each.type == "Failed":
            yield f"{each.reason}: {each.message}"


def _events(client: Any, name: str, namespace: str) -> str:
    """The last warning about a Job that has no pod: a quota say, or an account that is missing."""
    found = client.core_api.list_namespaced_event(
        namespace, field_selector=f"involvedObject.name={name}"
    )
    warnings = [event for event in found.items if event.type == "Warning"]
    return f"{warnings[-1].reason}: {warnings[-1].message}" if warnings else ""
