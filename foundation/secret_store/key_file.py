"""Master keys in a file, one a line: an id, a space, 32 bytes in base64. The first is current.

    6f0c2b7f1a9d4e55 q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k=

The file has mode 0600, or 0400 or 0440 where someone else keeps it: that is how Kubernetes mounts
a secret. Such a file is never changed here.
"""

import base64
import os
import re
import secrets
import stat
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from foundation import private_file
from foundation.ids import TenantId
from foundation.secret_store.base import MasterKeyFault, Wrapped
from foundation.secret_store.encryption import KEY_BYTES, Tampered, seal, unseal

_LINE: Final = re.compile(r"([A-Za-z0-9._-]{1,64}) +(\S+)")
_MODES: Final = (0o600, 0o400, 0o440)
_DATA_KEY: Final = "graphwright data key"


class KeyFile:
    """The master keys in a file, which is made where there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._keys: Mapping[str, bytes] = {}

    def wrap(self, tenant: TenantId, data_key: bytes) -> Wrapped:
        current, key = self._current()
        return Wrapped(current, seal(key, data_key, _DATA_KEY, tenant))

    def unwrap(self, tenant: TenantId, wrapped: Wrapped) -> bytes:
        key = self._key(wrapped.master_key)
        if key is None:
            raise MasterKeyFault(
                f"the master key {wrapped.master_key} is not in {self._path}",
                hint="Put its line back from a copy: what is encrypted under it is else lost.",
            )
        try:
            return unseal(key, wrapped.data, _DATA_KEY, tenant)
        except Tampered:
            raise MasterKeyFault(
                f"a data key of {tenant} is not the one that was wrapped",
                hint="Restore the table graphwright.data_keys.",
            ) from None

    def current(self) -> str:
        return self._current()[0]

    def holds(self, master_key: str) -> bool:
        return self._key(master_key) is not None

    def renew(self) -> None:
        with self._lock:
            keys = self._made()
            if not self._is_ours():
                raise MasterKeyFault(
                    f"{self._path} is read-only, so a new master key is for its keeper to add",
                    hint="Put a new first line before the others where the file comes from, for "
                    'instance of `echo "$(openssl rand -hex 8) $(openssl rand -base64 32)"`, and '
                    "run this again once all processes see it.",
                )
            self._write({**_new_key(), **keys})

    def retire(self) -> bool:
        with self._lock:
            keys = self._made()
            if len(keys) == 1:
                return True
            if not self._is_ours():
                return False
            current = next(iter(keys))
            self._write({current: keys[current]})
            return True

    def close(self) -> None:
        """There is nothing to let go of."""

    def _current(self) -> tuple[str, bytes]:
        """As the file has it now: another process may have put a new key in front."""
        with self._lock:
            self._keys = self._made()
            return next(iter(self._keys.items()))

    def _key(self, master_key: str) -> bytes | None:
        with self._lock:
            if master_key not in self._keys:
                self._keys = self._read()
            return self._keys.get(master_key)

    def _is_ours(self) -> bool:
        return bool(self._path.stat().st_mode & stat.S_IWUSR)

    def _write(self, keys: Mapping[str, bytes]) -> None:
        with self._translated("written"):
            private_file.replace(self._path.resolve(), _lines(keys))
        self._keys = keys

    def _made(self) -> Mapping[str, bytes]:
        """The keys in the file, which is made where there is none."""
        with self._translated("made"):
            private_file.create_once(self._path, _lines(_new_key()))
        return self._read()

    def _read(self) -> Mapping[str, bytes]:
        """The keys in the file, none where there is no file."""
        with self._translated("read"):
            try:
                mode = stat.S_IMODE(self._path.stat().st_mode)
                text = self._path.read_text("latin-1")
            except FileNotFoundError:
                return {}
        if mode not in _MODES:
            raise MasterKeyFault(
                f"{self._path} has the mode {mode:04o}, so others may read it",
                hint=f"Run `chmod 600 {self._path}`; mounted, it may have 0400 or 0440.",
            )
        return self._parsed(text)

    @contextmanager
    def _translated(self, what: str) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise MasterKeyFault(
                f"the file of the master key, {self._path}, cannot be {what}: {error.strerror}",
                hint="It belongs to the user that Graphwright runs as.",
            ) from error

    def _parsed(self, text: str) -> Mapping[str, bytes]:
        keys: dict[str, bytes] = {}
        for number, line in enumerate(text.splitlines(), 1):
            match = _LINE.fullmatch(line.strip())
            try:
                key = base64.b64decode(match[2], validate=True) if match else b""
            except ValueError:  # binascii.Error is one
                key = b""
            if match is None or len(key) != KEY_BYTES or match[1] in keys:
                raise MasterKeyFault(
                    f"line {number} of {self._path} is no master key",
                    hint="A line has an id of its own, a space, and 32 bytes in base64.",
                )
            keys[match[1]] = key
        if not keys:
            raise MasterKeyFault(
                f"{self._path} is empty", hint="Remove it if there never was a key in it."
            )
        return keys


def _new_key() -> Mapping[str, bytes]:
    return {secrets.token_hex(8): os.urandom(KEY_BYTES)}


def _lines(keys: Mapping[str, bytes]) -> bytes:
    return b"".join(
        f"{name} {base64.b64encode(key).decode()}\n".encode() for name, key in keys.items()
    )
