"""Roles started as a manifest says: its command, variables and files, until its probe answers."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.deploy.manifests import KUBERNETES, Manifests, Pods
from tests.services import free_port

READY_SECONDS: Final = 180
PORTS: Final = ("API_PORT", "HOOKS_PORT", "CODE_PORT", "DAGSTER_PORT")
KEY: Final = "0123456789abcdef q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k="

Files: TypeAlias = dict[str, Path]
"""What is mounted: by the path in the container, the file or folder that is there."""
Command: TypeAlias = Callable[[str, Mapping[str, str], Files], "tuple[list[str], dict[str, str]]"]
"""Of a role, its variables and files: what starts it, and in which environment."""


@dataclass
class Started:
    """All roles of an overlay, on this machine's network, each on ports of its own."""

    manifests: Manifests
    folder: Path
    given: Mapping[str, str]
    """Variables of what is elsewhere: PostgreSQL and Redis."""
    command: Command
    ports: dict[str, str] = field(default_factory=dict[str, str])
    """Of what roles serve, by their variables."""
    metrics: dict[str, str] = field(default_factory=dict[str, str])
    """Where each role tells of itself."""
    running: dict[str, subprocess.Popen[bytes]] = field(
        default_factory=dict[str, "subprocess.Popen[bytes]"]
    )

    def __post_init__(self) -> None:
        self.ports = {f"GRAPHWRIGHT_{name}": str(free_port()) for name in PORTS}

    def start(self, role: str) -> subprocess.Popen[bytes]:
        """Start a role. Everybody's network is one here, so ports and names differ."""
        pods = self.manifests.roles()[role]
        ui = f"http://127.0.0.1:{self.ports['GRAPHWRIGHT_DAGSTER_PORT']}"
        self.metrics[role] = str(free_port())
        variables = {
            **self.manifests.settings(pods),
            **self.given,
            **self.ports,
            "GRAPHWRIGHT_METRICS_PORT": self.metrics[role],
            "GRAPHWRIGHT_CODE_HOST": "0.0.0.0",
            "GRAPHWRIGHT_DAGSTER_URL": ui,
        }
        command, environment = self.command(role, variables, self._files(pods))
        with (self.folder / f"{role}.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.running[role] = process
        return process

    def _files(self, pods: Pods) -> Files:
        """The volumes of these pods, with what an operator's Secrets would hold."""
        own = self.folder / pods.role
        files: Files = {}
        for volume, mount in pods.mounts.items():
            path = own / volume
            path.mkdir(parents=True)
            files[mount["mountPath"]] = path
            match volume:
                case "master-key":
                    secret(path / "master.key", KEY)
                case "signing-key":
                    files[mount["mountPath"]] = secret(path / "signing.key", "k" * 40)
                case "dagster":
                    text = (KUBERNETES / "base" / "dagster.yaml").read_bytes()
                    (path / "dagster.yaml").write_bytes(text)
                case _:
                    path.chmod(0o777)  # as an emptyDir is
        return files

    def until_ready(self, role: str) -> None:
        """Wait until the readiness probe of the role's manifest is content."""
        probe = self.manifests.roles()[role].container["readinessProbe"]
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers(role, probe):
            assert self.running[role].poll() is None, f"{role} has ended:\n{self.log(role)}"
            assert time.monotonic() < deadline, f"{role} is not ready:\n{self.log(role)}"
            time.sleep(0.1)

    def _answers(self, role: str, probe: Mapping[str, Mapping[str, str]]) -> bool:
        if "grpc" in probe:
            with grpc.insecure_channel(f"127.0.0.1:{self.ports['GRAPHWRIGHT_CODE_PORT']}") as to:
                ask = health_pb2.HealthCheckRequest(service=probe["grpc"]["service"])
                stub: Any = health_pb2_grpc.HealthStub(to)
                with suppress(grpc.RpcError):
                    said = stub.Check(ask, timeout=5)
                    return bool(said.status == health_pb2.HealthCheckResponse.SERVING)
            return False
        own = {"metrics": self.metrics[role], "http": self.ports["GRAPHWRIGHT_DAGSTER_PORT"]}
        url = f"http://127.0.0.1:{own[probe['httpGet']['port']]}{probe['httpGet']['path']}"
        with suppress(httpx.TransportError):
            return httpx.get(url, timeout=10, trust_env=False).is_success
        return False

    def stop(self, role: str) -> int:
        """As Kubernetes does; the exit code. Raises TimeoutExpired where it would be killed."""
        process = self.running[role]
        process.terminate()
        seconds = self.manifests.roles()[role].spec.get("terminationGracePeriodSeconds", 30)
        return process.wait(seconds)

    def log(self, role: str) -> str:
        return (self.folder / f"{role}.log").read_text("utf-8", "replace")[-4_000:]

    def end(self) -> None:
        """End what still runs."""
        for process in self.running.values():
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def secret(path: Path, text: str) -> Path:
    """A file as a Secret is mounted: of root, for the group that the image's user has."""
    path.write_text(text)
    if os.getuid() == 0:
        os.chown(path, 0, 10001)
    path.chmod(0o440)
    return path


@contextmanager
def over_tcp(path: Path) -> Generator[int]:
    """A port on loopback that leads to the Unix socket ``path``, which is for its owner alone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    threading.Thread(target=relay, args=(near, path), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


def relay(near: socket.socket, path: Path) -> None:
    """Pass on what comes from either side, until both have ended."""
    with near, socket.socket(socket.AF_UNIX) as far:
        far.connect(str(path))
        back = threading.Thread(target=pump, args=(far, near), daemon=True)
        back.start()
        pump(near, far)
        back.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes, and its end."""
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
