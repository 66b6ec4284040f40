"""An image for tests: a shell and a Python of this machine's, with ``dagster_pipes``.

No registry is asked: the root is packed from files that are here, in about a second.
"""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import dagster_pipes
import docker
import pytest

IMAGE = "localhost/graphwright-tests/python:latest"
_PYTHONS = (Path("/usr/bin/python3"), Path(sys.executable))
"""The system's own is a fifth of the size of one that was built here."""
_LISTING = """
import dagster_pipes, asyncio, json, signal, time, urllib.request
import sys, sysconfig
print(sysconfig.get_path("stdlib"))
files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
print("\\n".join(file for file in files if file))
"""


def make_image(host: str) -> str:
    """The image's name, in the storage behind the socket. Skips where there is no busybox."""
    client = docker.DockerClient(base_url=host)
    try:
        if not client.images.list(name=IMAGE):
            name, _, tag = IMAGE.rpartition(":")
            client.api.import_image_from_data(_root(), repository=name, tag=tag)
    finally:
        client.close()
    return IMAGE


def _root() -> bytes:
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        pytest.skip("there is no busybox to make an image of")
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name in ("tmp", "proc", "sys", "dev", "etc"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        tar.add(busybox, "bin/busybox")
        for name in ("sh", "env", "echo", "cat", "sleep", "id", "touch", "ls"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        script = b'#!/bin/sh\necho "$@"\nexec /bin/sh -c "$GRAPHWRIGHT_TEST_SCRIPT"\n'
        ours = tarfile.TarInfo("bin/graphwright")  # stands in for ours, to see what it is given
        ours.mode, ours.size = 0o755, len(script)
        tar.addfile(ours, io.BytesIO(script))
        _add_python(tar)
    return content.getvalue()


def _add_python(tar: tarfile.TarFile) -> None:
    """The interpreter, and of its library what a program needs that speaks Pipes."""
    program = next(each for each in _PYTHONS if each.exists()).resolve()
    package = Path(dagster_pipes.__file__).parent
    done = subprocess.run(
        [program, "-S", "-c", _LISTING],
        env={"PYTHONPATH": str(package.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    library, *modules = map(Path, done.stdout.splitlines())
    for module in {*modules, *(library / "encodings").glob("*.py")}:
        within = library if module.is_relative_to(library) else package.parent
        tar.add(module, str(library / module.relative_to(within))[1:])
    for shared in sorted(_linked([program, *(each for each in modules if each.suffix == ".so")])):
        tar.add(shared.resolve(), str(shared)[1:])
    tar.add(program, str(program)[1:])
    link = tarfile.TarInfo("bin/python")
    link.type, link.linkname = tarfile.SYMTYPE, str(program)
    tar.addfile(link)


def _linked(files: list[Path]) -> set[Path]:
    """The shared objects that these need."""
    done = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False)
    words = done.stdout.split()
    return {Path(word) for word in words if word.startswith("/") and not word.endswith(":")}
