"""The output of one supervised process: its log file, and its division into lines."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

_MAX_LOG_BYTES = 16 * 2**20
_MAX_LINE_BYTES = 64 * 2**10


class RoleLog:
    """An append-only file that is set aside as ``<name>.1`` once it has 16 MiB."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, chunk: bytes) -> None:
        if self._file.tell() > _MAX_LOG_BYTES:
            self._file.close()
            self._path.replace(self._path.with_suffix(".log.1"))
            self._file = self._path.open("ab")
        self._file.write(chunk)
        self._file.flush()


class LineSplitter:
    """Cuts a stream of bytes into lines of text; one that never ends is cut at 64 KiB."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, chunk: bytes) -> Iterator[str]:
        *whole, self._pending = (self._pending + chunk).split(b"\n")
        if len(self._pending) > _MAX_LINE_BYTES:
            whole.append(self._pending)
            self._pending = b""
        for line in whole:
            yield line.decode("utf-8", "replace").rstrip("\r")

    def rest(self) -> Iterator[str]:
        if self._pending:
            yield self._pending.decode("utf-8", "replace")
            self._pending = b""


def tail(path: Path, lines: int) -> list[str]:
    """The last ``lines`` lines of a log file."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - lines * 400))
        return file.read().decode("utf-8", "replace").splitlines()[-lines:]
