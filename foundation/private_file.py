"""Files that hold a key: for their owner alone, and never seen half written."""

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


def create_once(path: Path, content: bytes) -> None:
    """Make the file unless it exists: of processes that start at once, the first one's stays."""
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _written_beside(path, content) as fresh:
        try:
            path.hardlink_to(fresh)  # never replaces
        except FileExistsError:
            return
    _sync(path.parent)


def replace(path: Path, content: bytes) -> None:
    """Give the file new content; readers see the old or the new, and a power cut leaves one.

    It stays its owner's when root does so.
    """
    owner = path.stat()
    with _written_beside(path, content) as fresh:
        os.chown(fresh, owner.st_uid, owner.st_gid)
        fresh.rename(path)
    _sync(path.parent)


@contextmanager
def _written_beside(path: Path, content: bytes) -> Generator[Path]:
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        yield fresh
    finally:
        fresh.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
