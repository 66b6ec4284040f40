"""The image, built by podman on a Debian root, and what runs in it. Skips where that cannot be."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.deploy.manifests import ROOT
from tests.deploy.starting import Files

IMAGE: Final = "localhost/graphwright:test"
BASE: Final = "localhost/base:test"
_SUITE: Final = "bookworm"
_BASE_PACKAGES: Final = "python3,python3-venv,ca-certificates"
_LIMITS: Final = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")
_CONFIGURATION: Final = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
"""
"""What podman needs where there is no systemd, and where ulimits cannot be raised."""
_SECRETS: Final = {
    "pip": "/etc/pip.conf",
    "uv": "/etc/uv/uv.toml",
    "ca": "/etc/ssl/certs/ca-certificates.crt",
}
LOCKED: Final = (
    "--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"
)  # fmt: skip


@dataclass(frozen=True)
class Podman:
    """Podman with a storage of its own."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "CONTAINERS_CONF": str(self.folder / "containers.conf")}

    @property
    def command(self) -> list[str]:
        own = [f"--root={self.folder}/storage", f"--runroot={self.folder}/run"]
        return ["podman", *own, f"--tmpdir={self.folder}/tmp"]

    def __call__(self, *arguments: str) -> str:
        """What it prints. Raises CalledProcessError."""
        done = subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return done.stdout

    def role(
        self, role: str, variables: Mapping[str, str], files: Files
    ) -> tuple[list[str], dict[str, str]]:
        """A container as restricted as the manifests' are, but on this machine's network."""
        options = [*LOCKED, "--rm", "--network=host"]
        for path, found in files.items():
            options.append(f"--volume={found}:{path}{'' if found.is_dir() else ':ro'}")
        options += [f"--env={name}={value}" for name, value in variables.items()]
        return [*self.command, "run", *options, IMAGE, role], self.environment


@contextmanager
def podman_image() -> Generator[Podman]:
    """Podman with our image. It takes minutes."""
    for program in ("podman", "runc", "debootstrap"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here: no image can be built")
    if os.getuid() != 0:
        pytest.skip("a Debian root can be made by root alone")
    with tempfile.TemporaryDirectory(prefix="image-", ignore_cleanup_errors=True) as folder:
        podman = Podman(Path(folder))
        (podman.folder / "containers.conf").write_text(_CONFIGURATION)
        _make_base(podman)
        here = {name: path for name, path in _SECRETS.items() if Path(path).exists()}
        given = [f"--secret=id={name},src={path}" for name, path in here.items()]
        podman(
            *("build", "--quiet", "--network=host", *_LIMITS, *given),
            *(f"--build-arg=BASE={BASE}", f"--tag={IMAGE}", str(ROOT)),
        )
        try:
            yield podman
        finally:
            podman("rm", "--all", "--force", "--time=0")


def _make_base(podman: Podman) -> None:
    root = podman.folder / "base"
    command = ["debootstrap", "--variant=minbase", f"--include={_BASE_PACKAGES}", _SUITE, str(root)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    archive = podman.folder / "base.tar"
    subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
    podman("import", "--quiet", str(archive), BASE)
    archive.unlink()
