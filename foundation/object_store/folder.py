"""Objects as files below a folder, readable by this user alone."""

import os
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from foundation.object_store.base import ObjectMissing, ObjectStoreAway

_PART: Final = ".part"
"""At the end of a file's name while it is written."""
_ATTEMPTS: Final = 5
"""To make a file: whoever deletes may take its still empty folder away each time."""


class FolderStore:
    """A folder of this machine, or one that machines share. It is made when first written to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        part = path.with_name(path.name + _PART)
        with self._translated():
            try:
                _write(part, data)
                part.rename(path)
            except OSError:
                with suppress(OSError):
                    part.unlink()
                raise
            # All of them, for another thread may have made one and not have come so far yet.
            for folder in path.relative_to(self._folder).parents:
                _sync(self._folder / folder)
            with suppress(PermissionError):  # then it was there before us
                _sync(self._folder.parent)

    def get(self, key: str) -> bytes:
        with self._translated():
            try:
                return self._path(key).read_bytes()
            except FileNotFoundError:
                self._folder.stat()  # a disk that is not mounted has lost nothing
                raise ObjectMissing(f"there is no object {key}") from None

    def link(self, key: str, seconds: int, content_type: str) -> str | None:
        """A folder has no server."""

    def keys(self, folder: str) -> Iterator[str]:
        with self._translated():
            for below, _, names in os.walk(self._path(folder)):
                for name in names:
                    yield (Path(below) / name).relative_to(self._folder).as_posix()

    def delete(self, keys: Collection[str]) -> None:
        paths = [self._path(key) for key in keys]
        with self._translated():
            for path in paths:
                path.unlink(missing_ok=True)
            for path in paths:
                self._prune(path.parent)

    def close(self) -> None:
        """There is nothing to let go of."""

    def _prune(self, folder: Path) -> None:
        """Remove the folders that are empty now, from the innermost on."""
        while folder != self._folder:
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                return  # not empty
            folder = folder.parent

    def _path(self, key: str) -> Path:
        if any(name in ("", ".", "..") for name in key.split("/")):
            raise ValueError(f"{key!r} is no key")
        return self._folder / key

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise ObjectStoreAway(
                f"the folder of objects cannot be used: {error}",
                hint=f"Is {self._folder} there, may this user write to it, and is there room?",
            ) from error


def _write(path: Path, data: bytes) -> None:
    for attempt in range(_ATTEMPTS):
        _make(path.parent)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except FileNotFoundError:
            if attempt + 1 == _ATTEMPTS:
                raise
            continue
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        return


def _make(folder: Path) -> None:
    """Like ``mkdir(parents=True)``, which gives the mode to the innermost folder only."""
    missing: list[Path] = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        with suppress(FileExistsError, FileNotFoundError):  # `_write` looks again
            each.mkdir(mode=0o700)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
