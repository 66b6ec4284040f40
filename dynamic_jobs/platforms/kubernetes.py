"""``kubernetes.job``: a pod, on the cluster that the worker is in or that its kubeconfig names."""

import time
from typing import Any, Final

from dagster._core.pipes.utils import open_pipes_session
from dagster_k8s.client import DagsterK8sError, DagsterKubernetesClient, WaitForPodState
from dagster_k8s.pipes import PipesK8sClient, build_pod_body, get_pod_name
from kubernetes.client import ApiException
from kubernetes.config import ConfigException
from pydantic import JsonValue
from urllib3.exceptions import HTTPError

from dynamic_jobs.platforms.base import (
    MAX_STEP_SECONDS,
    PlatformAway,
    Step,
    StepFailed,
    StepNotAllowed,
    StepNotStarted,
    beside,
)
from dynamic_jobs.platforms.images import bounded
from dynamic_jobs.platforms.patience import Patience
from dynamic_jobs.platforms.pod_log import follow
from dynamic_jobs.platforms.pods import (
    connected,
    create_pod,
    passes,
    read_pod,
    remove,
    remove_all,
)
from dynamic_jobs.platforms.reports import Reports
from dynamic_jobs.platforms.session import BoundedEnvInjector, Relay, extras, pipes_context
from graph_defs.step_policy import KubernetesSteps
from node_types.base import NodeCancelled
from node_types.kubernetes_job import KubernetesStep

_POLL_SECONDS: Final = 1.0
_TMP_BYTES: Final = "64Mi"
_STARTING: Final = frozenset({None, "ContainerCreating", "PodInitializing"})
"""Reasons why a container waits that pass by themselves."""


class _Client(PipesK8sClient):
    """Pipes' client, that follows the pod's log line by line, and ends when the step is to end."""

    def __init__(self, step: Step, reports: Reports) -> None:
        super().__init__(context_injector=BoundedEnvInjector(), message_reader=Relay(reports))
        self._step = step
        self._reports = reports
        self.pod = get_pod_name(step.context.run_id, step.context.node)

    def run_pod(self, api: Any, given: KubernetesStep, policy: KubernetesSteps) -> None:
        """What ``run`` does, which makes the pod by requests that wait for an answer for ever.

        Raises GraphwrightError, DagsterK8sError, ApiException and HTTPError.
        """
        step, namespace = self._step, policy.namespace
        # Kubernetes replaces `$(NAME)`, and takes `$$` for a `$`.
        env = {name: value.replace("$", "$$") for name, value in given.env.items()}
        with open_pipes_session(
            context=pipes_context(step),
            context_injector=self.context_injector,
            message_reader=self.message_reader,
            extras=extras(step, given.input),
        ) as session:
            pod = build_pod_body(
                pod_name=self.pod,
                image=None,
                command=None,
                env_vars={**session.get_bootstrap_env_vars(), **env},
                base_pod_meta={"labels": step.labels},
                base_pod_spec=pod_spec(given, policy),
            )
            create_pod(api, namespace, pod)
            self._follow(api, namespace)
            client = DagsterKubernetesClient.production_client(core_api_override=api)
            client.wait_for_pod(  # it has ended: this looks how
                self.pod, namespace, wait_for_state=WaitForPodState.Terminated
            )

    def _follow(self, api: Any, namespace: str) -> None:
        """Until the pod has ended, or is to end."""
        ending = self._step.ending

        def stop() -> None:
            grace = max(1, int(self._step.limits.grace_seconds) - 1)
            api.delete_namespaced_pod(self.pod, namespace, grace_period_seconds=grace)

        with ending.stopping(stop):
            self._await_start(api, namespace, self.pod)
            pod = follow(api, namespace, self.pod, self._reports, ending)
        if ending.is_set():
            raise NodeCancelled("the pod was deleted")
        if pod is None or pod.metadata.deletion_timestamp is not None:
            # Dagster's client would wait a day for it to come.
            raise StepFailed("the pod was deleted before it had ended")

    def _await_start(self, api: Any, namespace: str, name: str) -> None:
        """Wait for the pod to run, or to have run: as Pipes' client would, but that it would wait a
        day for a pod that cannot be scheduled, or is deleted or evicted before.

        Raises StepNotStarted, ApiException and HTTPError.
        """
        told, patience = "", Patience(self._step.ending)
        seconds = self._step.limits.start_seconds
        deadline = time.monotonic() + seconds
        while not self._step.ending.is_set():
            pod = read_pod(api, namespace, name, patience)
            containers: list[Any] = pod.status.container_statuses or []
            if pod.status.phase == "Failed" and not containers:
                raise StepNotStarted(f"the pod failed: {pod.status.reason}: {pod.status.message}")
            if pod.status.phase in ("Running", "Succeeded", "Failed"):
                return
            for container in containers:
                waiting = container.state.waiting
                if waiting is not None and waiting.reason not in _STARTING:
                    raise StepNotStarted(f"the pod waits: {waiting.reason}: {waiting.message}")
            conditions: list[Any] = pod.status.conditions or []
            for condition in conditions:
                unscheduled = condition.type == "PodScheduled" and condition.status == "False"
                if unscheduled and condition.message != told:
                    told = str(condition.message)
                    self._reports.log("warning", f"the pod is not scheduled: {told}")
            if time.monotonic() >= deadline:
                why = f": {told}" if told else ""
                raise StepNotStarted(f"the pod has not started in {seconds:g} seconds{why}")
            self._step.ending.wait(_POLL_SECONDS)


class KubernetesPlatform:
    """Pods under Kubernetes' restricted security, in a namespace for them, without its API."""

    def run(self, given: KubernetesStep, step: Step) -> JsonValue:
        policy = step.policy.kubernetes
        if policy is None:
            raise StepNotAllowed("the operator does not allow `kubernetes.job` to this tenant")
        given = bounded(given, policy)
        account = given.service_account
        if account is not None and account not in policy.service_accounts:
            raise StepNotAllowed(
                f"the operator does not allow the service account {account} to this tenant"
            )
        reports = Reports(step.context, step.limits)
        client = _Client(step, reports)
        try:
            api = connected(client)
            remove_all(api, policy.namespace, step.labels)  # a worker that was killed has left it
            try:
                client.run_pod(api, given, policy)
            finally:
                name = client.pod
                beside(lambda: remove(api, policy.namespace, [name]), f"pod {name}")
        except DagsterK8sError as error:
            raise _failed(error, reports) from error
        except ApiException as error:
            status: Any = error
            kind = PlatformAway if passes(error) else StepNotStarted
            raise kind(
                f"the cluster refused: {status.status} {status.reason}",
                hint=str(status.body)[:500],
            ) from error
        except (HTTPError, ConfigException) as error:
            raise PlatformAway("the cluster does not answer", hint=str(error)[:500]) from error
        return reports.result()


def pod_spec(given: KubernetesStep, policy: KubernetesSteps) -> dict[str, Any]:
    """What the pod gets besides its environment: nothing of the worker's, and no privileges."""
    resources = {"cpu": given.cpu, "memory": given.memory}
    container: dict[str, Any] = {
        "image": given.image,
        **({"command": given.command} if given.command else {}),
        **({"args": given.args} if given.args else {}),
        "resources": {"requests": resources, "limits": resources},
        "security_context": {
            "allow_privilege_escalation": False,
            "capabilities": {"drop": ["ALL"]},
            "read_only_root_filesystem": True,
        },
        "volume_mounts": [{"name": "tmp", "mount_path": "/tmp"}],  # noqa: S108 - the pod's
    }
    return {
        "automount_service_account_token": False,
        "enable_service_links": False,
        "active_deadline_seconds": MAX_STEP_SECONDS,
        "containers": [container],
        "restart_policy": "Never",
        "security_context": {
            "run_as_non_root": True,
            "run_as_user": given.user,
            "run_as_group": given.user,
            "fs_group": given.user,
            "seccomp_profile": {"type": "RuntimeDefault"},
        },
        **({"node_selector": policy.node_selector} if policy.node_selector else {}),
        **({"service_account_name": given.service_account} if given.service_account else {}),
        "volumes": [{"name": "tmp", "empty_dir": {"size_limit": _TMP_BYTES}}],
    }


def _failed(error: DagsterK8sError, reports: Reports) -> StepFailed:
    """Pipes' client tells much: the manifest, events, a hundred lines that are in the log."""
    if reports.error:
        return StepFailed(f"the pod failed: {reports.error}")
    return StepFailed("the pod failed", hint=str(error)[:500])
