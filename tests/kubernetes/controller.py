"""The fake's controller of Jobs: it makes their pods, and tells how these ended."""

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.kubernetes.kubelet import Kubelet
from tests.kubernetes.objects import Object, Rejected, Store, now

_FINISHED: Final = ("Succeeded", "Failed")


@dataclass
class JobController:
    """Looks at a Job whenever it or one of its pods was written."""

    store: Store
    kubelet: Kubelet
    create_pod: Callable[[str, Object], Object]
    """As a client would: it is validated."""
    event: Callable[[Object, str, str], None]
    _timers: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _failed: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """The pods of each Job that have failed, or were deleted before they had ended."""

    def accept(self, job: Object) -> None:
        """Start a Job that was just created."""
        job["status"] = {"startTime": now()}
        self._failed[job["metadata"]["uid"]] = set()
        self._next_pod(job)

    def changed(self, held: Object) -> None:
        """An object was written, or is gone."""
        if held["kind"] != "Pod":
            return
        for owner in held["metadata"].get("ownerReferences", []):
            namespace = held["metadata"]["namespace"]
            job = self.store.find("Job", namespace, owner["name"])
            if job is not None and job["metadata"]["uid"] == owner["uid"]:
                self._look(job, held)

    def delete(self, job: Object, propagation: str) -> None:
        """Forget a Job. Its pods stay if they are orphaned, which is the API's default for Jobs."""
        self.store.remove(job)
        if propagation != "Orphan":
            for pod in self.pods_of(job):
                self.kubelet.delete(pod, None)

    def pods_of(self, job: Object) -> list[Object]:
        return [
            pod
            for pod in self.store.all("Pod", job["metadata"]["namespace"])
            for owner in pod["metadata"].get("ownerReferences", [])
            if owner["uid"] == job["metadata"]["uid"]
        ]

    def _next_pod(self, job: Object) -> None:
        metadata = job["metadata"]
        template = copy.deepcopy(job["spec"]["template"])
        described = template.get("metadata", {})
        described.pop("name", None)  # a pod is named after its Job
        described |= {
            "generateName": f"{metadata['name']}-",
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": described, "spec": template["spec"]}
        try:
            self.create_pod(metadata["namespace"], pod)
        except Rejected as error:  # the real one tries again and again
            self.event(job, "FailedCreate", f"Error creating: {error}")
        self.store.write(job)

    def _look(self, job: Object, pod: Object) -> None:
        status, failed = job["status"], self._failed[job["metadata"]["uid"]]
        if "conditions" in status:
            return
        phase = pod.get("status", {}).get("phase")
        gone = self.store.find("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"]) is None
        if phase == "Succeeded":
            status |= {"succeeded": 1, "completionTime": now()}
            self._end(job, "Complete", "CompletionsReached", "Reached expected number of pods")
        elif phase == "Failed" or gone:
            if pod["metadata"]["uid"] in failed:
                return
            failed.add(pod["metadata"]["uid"])
            status["failed"] = len(failed)
            if len(failed) > job["spec"].get("backoffLimit", 6):
                message = "Job has reached the specified backoff limit"
                self._end(job, "Failed", "BackoffLimitExceeded", message)
            else:
                self._next_pod(job)
        else:
            status |= {"active": 1, "ready": int(phase == "Running")}
            self.store.write(job)

    def _end(self, job: Object, kind: str, reason: str, message: str) -> None:
        for name in ("active", "ready"):
            job["status"].pop(name, None)
        told = {"reason": reason, "message": message, "lastTransitionTime": now()}
        job["status"]["conditions"] = [{"type": kind, "status": "True", **told}]
        self.store.write(job)
        seconds = job["spec"].get("ttlSecondsAfterFinished")
        if seconds is not None:
            timer = asyncio.create_task(self._expire(job, seconds))
            self._timers.add(timer)
            timer.add_done_callback(self._timers.discard)

    async def _expire(self, job: Object, seconds: float) -> None:
        await asyncio.sleep(seconds)
        held = self.store.find("Job", job["metadata"]["namespace"], job["metadata"]["name"])
        if held is job:
            self.delete(job, "Background")
