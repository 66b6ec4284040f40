"""Containers of the fake's pods: local processes with the environment of their manifest.

What an image holds is this machine's: its ``PATH`` begins with the folder of this Python. A mounted
volume is a folder of the pod's own; where an environment variable or an argument names a path below
the mount, the process is told the folder instead, for nothing is mounted.
"""

import asyncio
import base64
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.kubernetes.objects import Object, Store

_REFERENCE: Final = re.compile(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")
STATE: Final = "/var/lib/graphwright"
TMP: Final = "/tmp"
_PIECE_BYTES: Final = 1 << 16


class Unstartable(Exception):
    """Why a container cannot be made, as the kubelet's ``CreateContainerConfigError`` says it."""


def image_environment(image: str) -> dict[str, str]:
    """The variables that an image has: ours those of its Dockerfile."""
    folders = [str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]
    found = {"PATH": ":".join(folders)}
    if image.partition(":")[0].rpartition("/")[2] == "graphwright":
        found |= {"HOME": STATE, "TMPDIR": TMP, "GRAPHWRIGHT_STATE": STATE, "PYTHONUNBUFFERED": "1"}
    return found


def root(manifest: Object, folder: Path) -> dict[str, Path]:
    """The folders of the image that its user may write, unless the root is read-only: then they are
    not there at all."""
    found = {STATE: folder / "root/state", TMP: folder / "root/tmp"}
    if not manifest.get("securityContext", {}).get("readOnlyRootFilesystem"):
        for place in found.values():
            place.mkdir(parents=True, exist_ok=True)
    return found


def volumes(store: Store, pod: Object, folder: Path) -> dict[str, Path]:
    """A folder for each volume of the pod, with the files of ConfigMaps and Secrets in it."""
    made: dict[str, Path] = {}
    for volume in pod["spec"].get("volumes", []):
        place = made[volume["name"]] = folder / "volumes" / volume["name"]
        place.mkdir(parents=True)
        if "emptyDir" in volume:
            continue
        source = volume.get("configMap") or volume.get("secret")
        if source is None:
            raise Unstartable(f"the fake does not know the type of volume {volume['name']}")
        kind = "ConfigMap" if "configMap" in volume else "Secret"
        name = source.get("name") or source.get("secretName")
        for key, value in data(store, pod, kind, name, bool(source.get("optional"))).items():
            (place / key).write_text(value)
    return made


def data(store: Store, pod: Object, kind: str, name: str, optional: bool) -> dict[str, str]:
    """What a ConfigMap or Secret holds."""
    held = store.find(kind, pod["metadata"]["namespace"], name)
    if held is None:
        if optional:
            return {}
        raise Unstartable(f'{kind.lower()} "{name}" not found')
    if kind == "ConfigMap":
        return held.get("data", {})
    encoded: Mapping[str, str] = held.get("data", {})
    found = {key: base64.b64decode(value).decode() for key, value in encoded.items()}
    return {**found, **held.get("stringData", {})}


def environment(store: Store, pod: Object, container: Object, address: str) -> dict[str, str]:
    """All variables of a container: nothing of this process's own environment."""
    host, _, port = address.rpartition(":")
    found = {
        **image_environment(container["image"]),
        "HOSTNAME": pod["metadata"]["name"],
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
    }
    for source in container.get("envFrom", []):
        reference = source.get("configMapRef") or source.get("secretRef")
        kind = "ConfigMap" if "configMapRef" in source else "Secret"
        optional = bool(reference.get("optional"))
        prefix = source.get("prefix", "")
        for key, value in data(store, pod, kind, reference["name"], optional).items():
            found[prefix + key] = value
    for variable in container.get("env", []):
        found[variable["name"]] = _value(store, pod, variable, found)
    return found


def _value(store: Store, pod: Object, variable: Object, known: Mapping[str, str]) -> str:
    source = variable.get("valueFrom")
    if source is None:
        return expanded(variable.get("value") or "", known)
    if "fieldRef" in source:
        kind, _, name = source["fieldRef"]["fieldPath"].partition(".")
        return str(pod[kind][name])
    reference = source.get("secretKeyRef") or source.get("configMapKeyRef")
    if reference is None:
        raise Unstartable(f"the fake does not know where {variable['name']} comes from")
    kind = "Secret" if "secretKeyRef" in source else "ConfigMap"
    optional = bool(reference.get("optional"))
    values = data(store, pod, kind, reference["name"], optional)
    if reference["key"] not in values and not optional:
        raise Unstartable(f"couldn't find key {reference['key']} in {kind} {reference['name']}")
    return values.get(reference["key"], "")


def expanded(text: str, known: Mapping[str, str]) -> str:
    """``$(NAME)`` is replaced where the name is known, as in commands and variables; ``$$`` is a
    ``$``."""
    return _REFERENCE.sub(lambda found: known.get(found[1], found[0]) if found[1] else "$", text)


def _moved(text: str, mounts: Mapping[str, Path]) -> str:
    for mount, folder in sorted(mounts.items(), reverse=True):  # the deeper one first
        if text == mount or text.startswith(f"{mount}/"):
            return f"{folder}{text[len(mount) :]}"
    return text


async def _pipe() -> tuple[asyncio.StreamReader, int]:
    """What is written to the descriptor can be read. With a pipe that asyncio made for a process,
    it would hold the process for alive until all of its children have closed theirs too."""
    ours, theirs = os.pipe()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb")
    )
    return reader, theirs


@dataclass
class Container:
    """One container of a pod, and what it has written so far."""

    manifest: Object
    process: asyncio.subprocess.Process | None = None
    lines: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])
    """When each line was written, RFC 3339 with microseconds, and the line."""
    exit_code: int | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """It runs, or has ended: it has a log."""
    _grown: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def name(self) -> str:
        return self.manifest["name"]

    async def run(
        self, variables: Mapping[str, str], mounts: Mapping[str, Path], folder: Path
    ) -> None:
        """Start it, and wait until it ends. ``mounts`` are the folders by their mount paths."""
        command = [*(self.manifest.get("command", [])), *(self.manifest.get("args", []))]
        argv = [_moved(expanded(each, variables), mounts) for each in command]
        # PATH names folders of this machine, whatever is mounted where they are.
        moved = {
            name: value if name == "PATH" else _moved(value, mounts)
            for name, value in variables.items()
        }
        reader, end = await _pipe()
        try:
            if not argv:
                raise FileNotFoundError("images of the fake have no entry point: say a command")
            self.process = await asyncio.create_subprocess_exec(
                *argv,
                env=moved,
                cwd=folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=end,
                stderr=end,
                start_new_session=True,
            )
        except OSError as error:
            await self._wrote(str(error).encode())
            await self._ended(128)
            return
        finally:
            os.close(end)
            self.begun.set()
        reading = asyncio.create_task(self._read(reader))
        code = await self.process.wait()
        self.signal(signal.SIGKILL)  # a container ends with its first process
        await reading
        await self._ended(code if code >= 0 else 128 - code)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        rest = bytearray()
        while piece := await reader.read(_PIECE_BYTES):
            rest += piece
            if b"\n" in piece:
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    await self._wrote(bytes(line))
        if rest:
            await self._wrote(bytes(rest))

    def signal(self, number: signal.Signals) -> None:
        """SIGTERM goes to the first process; SIGKILL to all that are left of the container."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self.process.pid, number)
            elif self.exit_code is None:
                self.process.send_signal(number)

    async def _wrote(self, line: bytes) -> None:
        async with self._grown:
            self.lines.append((datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), line))
            self._grown.notify_all()

    async def _ended(self, code: int) -> None:
        async with self._grown:
            self.exit_code = code
            self._grown.notify_all()

    async def log(self, tail: int | None, follow: bool, stamped: bool) -> AsyncIterator[bytes]:
        """What it has written, from the last ``tail`` lines on; and what it will write."""
        at = max(0, len(self.lines) - tail) if tail is not None else 0
        while True:
            for stamp, line in self.lines[at:]:
                yield (stamp.encode() + b" " if stamped else b"") + line + b"\n"
                at += 1
            if not follow or (self.exit_code is not None and at == len(self.lines)):
                return
            async with self._grown:
                await self._grown.wait_for(
                    lambda: len(self.lines) > at or self.exit_code is not None  # noqa: B023
                )
