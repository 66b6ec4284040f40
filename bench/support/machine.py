"""Which machine, and which state of the code: what a figure is worthless without."""

import hashlib
import os
import platform
import subprocess
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

ROOT = Path(__file__).parent.parent.parent
_IN_MEMORY = {"tmpfs", "ramfs"}


class Machine(BaseModel):
    """``disk`` is the file system below PostgreSQL, ``postgres`` its version and settings."""

    model_config = ConfigDict(frozen=True)

    cpu: str
    cores: int
    memory_gib: int
    system: str
    python: str
    disk: str
    postgres: str


def this_machine(database_folder: Path, postgres: str) -> Machine:
    """Raises RuntimeError where the databases would lie in memory: fsync would cost nothing."""
    disk = _file_system(database_folder)
    if disk in _IN_MEMORY:
        raise RuntimeError(
            f"{database_folder} is in memory ({disk}), where a durable write costs nothing. "
            "Set TMPDIR to a folder on a disk."
        )
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cores(),
        memory_gib=round(psutil.virtual_memory().total / 2**30),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        disk=disk,
        postgres=postgres,
    )


def busy_cores() -> float:
    """How many cores' worth of time was used on this machine during the second that this takes."""
    return psutil.cpu_percent(interval=1.0) / 100 * _cores()


def commit() -> str:
    """The commit of the checkout; where files differ from it, also a digest of the differences.

    Results and the page that this command itself writes do not count.
    """
    head = _git("rev-parse", "--short=12", "HEAD")
    own = (":!bench/results", ":!docs/benchmarks.md")
    changes = hashlib.sha256(_git("diff", "HEAD", "--", ".", *own).encode())
    new = _git("ls-files", "--others", "--exclude-standard", "--", ".", *own).splitlines()
    for name in new:
        changes.update((ROOT / name).read_bytes())
    same = changes.digest() == hashlib.sha256().digest()
    return (head or "unknown") + ("" if same else f"+changes-{changes.hexdigest()[:8]}")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def _cores() -> int:
    return psutil.cpu_count() or 1


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _file_system(folder: Path) -> str:
    holding = [
        part
        for part in psutil.disk_partitions(all=True)
        if folder.resolve().is_relative_to(part.mountpoint)
    ]
    return max(holding, key=lambda part: len(part.mountpoint)).fstype if holding else "unknown"
