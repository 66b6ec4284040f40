"""The Docker-compatible socket that ``DOCKER_HOST`` names, or else one of podman's, for the tests.

Podman runs as root with a storage of its own; nothing that others keep on the machine is touched.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException
from requests.exceptions import RequestException

_WAIT_SECONDS = 30
_API_VERSION = "1.41"
_CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""
"""What podman needs where there is no systemd, and where ulimits cannot be raised."""


@contextmanager
def docker_socket() -> Generator[str]:
    """``DOCKER_HOST`` of a socket that answers, until the block ends. Skips where none does."""
    if host := os.environ.get("DOCKER_HOST"):
        if not _answers(host):
            pytest.skip(f"no Docker-compatible socket answers at DOCKER_HOST {host}")
        yield host
        return
    if shutil.which("podman") is None or shutil.which("runc") is None or os.getuid() != 0:
        pytest.skip("no DOCKER_HOST is set, and podman with runc is not here, or not for root")
    folder = Path(tempfile.mkdtemp(prefix="podman-"))  # a socket's path must be short
    try:
        with _podman(folder) as host:
            yield host
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _podman(folder: Path) -> Generator[str]:
    configuration = folder / "containers.conf"
    configuration.write_text(_CONFIGURATION)
    host = f"unix://{folder}/socket"
    command = ["podman", "--storage-driver", "vfs", "--root", str(folder / "storage")]
    command += ["--runroot", str(folder / "run"), "--tmpdir", str(folder / "tmp")]
    environment = {**os.environ, "CONTAINERS_CONF": str(configuration)}
    log = folder / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*command, "system", "service", "--time=0", host],
            env=environment,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            if not (_listens(folder / "socket", process) and _answers(host)):
                pytest.skip(f"podman's socket does not answer: {log.read_text()[-300:]}")
            yield host
        finally:
            process.terminate()
            process.wait()
            subprocess.run(  # what a failed test has left running
                [*command, "rm", "--all", "--force", "--time=0"],
                env=environment,
                capture_output=True,
                check=False,
            )


def _answers(host: str) -> bool:
    client = docker.DockerClient(base_url=host, version=_API_VERSION)
    try:
        return bool(client.ping())
    except (DockerException, RequestException):
        return False
    finally:
        client.close()


def _listens(path: Path, process: "subprocess.Popen[bytes]") -> bool:
    """Wait for the process to listen there. Says whether it does: it may end instead."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                return True
        time.sleep(0.02)
    return False
