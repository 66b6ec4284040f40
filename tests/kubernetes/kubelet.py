"""The fake's only node: it places pods, or says why it cannot, and executes their containers."""

import asyncio
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from tests.kubernetes import containers
from tests.kubernetes.containers import Container, Unstartable
from tests.kubernetes.objects import Object, Store, now
from tests.kubernetes.rules import quantity

NODE: Final = "fake-node"
LABELS: Final = {"kubernetes.io/os": "linux", "kubernetes.io/hostname": NODE, "pool": "batch"}
CAPACITY: Final = {"cpu": Decimal(4), "memory": Decimal(16 * 2**30)}
_GRACE_SECONDS: Final = 30


@dataclass
class _Placed:
    containers: list[Container]
    task: asyncio.Task[None] | None = None
    stopping: asyncio.Task[None] | None = None


@dataclass
class Kubelet:
    """Executes pods as they appear, each in a folder of its own below ``folder``."""

    store: Store
    folder: Path
    images: frozenset[str]
    """Those that can be pulled."""
    address: str
    """Of the API server, as containers are told it."""
    event: Callable[[Object, str, str], None]
    """Writes an event of type Warning: about what, its reason and message."""
    _pods: dict[str, _Placed] = field(default_factory=dict[str, _Placed])

    def start(self, pod: Object) -> None:
        """Execute a pod that was just created."""
        spec = pod["spec"]
        manifests = [*spec.get("initContainers", []), *spec["containers"]]
        placed = self._pods[pod["metadata"]["uid"]] = _Placed([Container(m) for m in manifests])
        pod["status"] = {"phase": "Pending", "qosClass": "Burstable"}
        self.store.write(pod)
        placed.task = asyncio.create_task(self._execute(pod, placed.containers))

    def container(self, pod: Object, name: str | None) -> Container | None:
        """The container of this name, or the first that is no init container."""
        count = len(pod["spec"].get("initContainers", []))
        placed = self._pods[pod["metadata"]["uid"]].containers
        if name is None:
            return placed[count]
        return next((each for each in placed if each.name == name), None)

    def delete(self, pod: Object, grace_seconds: float | None) -> None:
        """Stop a pod, and forget it when it has stopped. 0 seconds kill it at once."""
        if grace_seconds is None:
            grace_seconds = pod["spec"].get("terminationGracePeriodSeconds", _GRACE_SECONDS)
        assert grace_seconds is not None
        placed = self._pods.get(pod["metadata"]["uid"])
        if placed is None:  # execution is off
            self.store.remove(pod)
            self.store.changed(pod)
            return
        if placed.stopping is not None:
            if grace_seconds > 0:
                return
            placed.stopping.cancel()
        pod["metadata"] |= {
            "deletionTimestamp": now(), "deletionGracePeriodSeconds": int(grace_seconds),
        }  # fmt: skip
        self.store.write(pod)
        placed.stopping = asyncio.create_task(self._stop(pod, placed, grace_seconds))

    async def _stop(self, pod: Object, placed: _Placed, grace_seconds: float) -> None:
        assert placed.task is not None
        living = [each for each in placed.containers if each.process is not None]
        if living and grace_seconds > 0:
            for container in living:
                container.signal(signal.SIGTERM)
            await asyncio.wait({placed.task}, timeout=grace_seconds)
        for container in living:
            container.signal(signal.SIGKILL)
        if living:
            await asyncio.wait({placed.task})
        placed.task.cancel()
        self.store.remove(pod)
        self.store.changed(pod)
        shutil.rmtree(self._folder(pod), ignore_errors=True)

    def close(self) -> None:
        """Kill all that still runs."""
        for placed in self._pods.values():
            for container in placed.containers:
                container.signal(signal.SIGKILL)

    def _folder(self, pod: Object) -> Path:
        return self.folder / pod["metadata"]["uid"]

    async def _execute(self, pod: Object, placed: list[Container]) -> None:
        if why := self._unschedulable(pod["spec"]):
            self._condition(pod, "PodScheduled", "False", "Unschedulable", why)
            self.event(pod, "FailedScheduling", why)
            return
        pod["spec"]["nodeName"] = NODE
        pod["status"]["startTime"] = now()
        self._condition(pod, "PodScheduled", "True")
        try:
            environments, mounts = self._prepared(pod, placed)
        except _Waiting as waiting:
            self._show(pod, placed, {waiting.container: waiting.state})
            self.event(pod, "Failed", waiting.state["message"])
            return
        count = len(pod["spec"].get("initContainers", []))
        for index, container in enumerate(placed[:count]):
            await self._run(pod, placed, [container], environments, mounts)
            if container.exit_code:
                self._finish(pod, "Failed", placed[: index + 1])
                return
        await self._run(pod, placed, placed[count:], environments, mounts)
        failed = any(container.exit_code for container in placed[count:])
        self._finish(pod, "Failed" if failed else "Succeeded", placed)

    def _unschedulable(self, spec: Object) -> str | None:
        wanted = spec.get("nodeSelector", {}).items()
        if not wanted <= LABELS.items():
            return "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
        for name, most in CAPACITY.items():
            asked = Decimal(0)
            for container in spec["containers"]:
                resources = container.get("resources", {})
                amounts = {**resources.get("limits", {}), **resources.get("requests", {})}
                asked += quantity(amounts.get(name, "0"))
            if asked > most:
                return f"0/1 nodes are available: 1 Insufficient {name}."
        return None

    def _prepared(
        self, pod: Object, placed: list[Container]
    ) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, Path]]]:
        """The variables and the mounts of each container, by its name."""
        environments: dict[str, dict[str, str]] = {}
        mounts: dict[str, dict[str, Path]] = {}
        folder = self._folder(pod)
        folder.mkdir(parents=True)
        for container in placed:
            image = container.manifest["image"]
            if image not in self.images:
                message = f'Back-off pulling image "{image}": not found'
                raise _Waiting(container.name, "ImagePullBackOff", message)
        found: dict[str, Path] = {}
        for container in placed:
            try:
                found = found or containers.volumes(self.store, pod, folder)
                environments[container.name] = containers.environment(
                    self.store, pod, container.manifest, self.address
                )
            except Unstartable as error:
                raise _Waiting(container.name, "CreateContainerConfigError", str(error)) from None
            places = mounts[container.name] = containers.root(container.manifest, folder)
            for mount in container.manifest.get("volumeMounts", []):
                place = found[mount["name"]] / mount.get("subPath", "")
                places[mount["mountPath"].rstrip("/")] = place
        return environments, mounts

    async def _run(
        self,
        pod: Object,
        placed: list[Container],
        now_running: list[Container],
        environments: dict[str, dict[str, str]],
        mounts: dict[str, dict[str, Path]],
    ) -> None:
        tasks = [
            asyncio.create_task(
                each.run(environments[each.name], mounts[each.name], self._folder(pod))
            )
            for each in now_running
        ]
        for each in now_running:
            await each.begun.wait()  # who sees that it runs may ask for its log
        if now_running[-1] is placed[-1]:
            pod["status"]["phase"] = "Running"
        running = {each.name: {"running": {"startedAt": now()}} for each in now_running}
        while pending := [task for task in tasks if not task.done()]:
            self._show(pod, placed, running)
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.result()

    def _finish(self, pod: Object, phase: str, shown: list[Container]) -> None:
        pod["status"]["phase"] = phase
        self._show(pod, shown, {})

    def _condition(
        self, pod: Object, kind: str, status: str, reason: str = "", message: str = ""
    ) -> None:
        told = {"reason": reason, "message": message} if reason else {}
        condition = {"type": kind, "status": status, "lastTransitionTime": now(), **told}
        pod["status"].setdefault("conditions", []).append(condition)
        self.store.write(pod)

    def _show(self, pod: Object, placed: list[Container], states: dict[str, Object]) -> None:
        """Write how the containers are: ended, as ``states`` says, or still to be made."""
        count = len(pod["spec"].get("initContainers", []))
        shown: list[Object] = []
        for container in placed:
            state = states.get(container.name, {"waiting": {"reason": "PodInitializing"}})
            if "message" in state:
                state = {"waiting": state}
            if container.exit_code is not None:
                state = {"terminated": _ended(container.exit_code)}
            shown.append(
                {
                    "name": container.name,
                    "image": container.manifest["image"],
                    "imageID": "",
                    "ready": "running" in state,
                    "restartCount": 0,
                    "state": state,
                }
            )
        pod["status"]["initContainerStatuses"] = shown[:count]
        pod["status"]["containerStatuses"] = shown[count:]
        self.store.write(pod)


class _Waiting(Exception):
    """A container that waits for what does not come."""

    def __init__(self, container: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.container = container
        self.state: dict[str, Any] = {"reason": reason, "message": message}


def _ended(code: int) -> Object:
    reason = "Completed" if code == 0 else "Error"
    return {"exitCode": code, "reason": reason, "startedAt": now(), "finishedAt": now()}
