"""The key that signs this installation's own tokens."""

import base64
import secrets
import stat
from pathlib import Path
from typing import Final, NewType

from foundation import private_file
from foundation.errors import GraphwrightError

SigningKey = NewType("SigningKey", bytes)

_KEY_BYTES: Final = 32  # as long as the hash, RFC 7518 section 3.2
_OTHERS: Final = 0o077
_MOUNTED: Final = 0o440


class SigningKeyError(GraphwrightError):
    """The file with the signing key cannot be trusted."""

    code = "signing_key_unusable"


def signing_key(state: Path) -> SigningKey:
    """The key in ``<state>/signing.key``, made on first use; processes that start at once agree.

    Mounted, the file may have the mode 0440: that is how Kubernetes gives a secret to a pod.

    Raises SigningKeyError when others can read the file, or when it holds too short a key.
    """
    path = state / "signing.key"
    private_file.create_once(path, base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)))
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS and mode != _MOUNTED:
        raise SigningKeyError(
            f"{path} can be read by others than its owner",
            hint=f"Whoever read it can make tokens. Remove it, or run `chmod 600 {path}`.",
        )
    key = path.read_bytes().strip()
    if len(key) < _KEY_BYTES:
        raise SigningKeyError(
            f"{path} holds less than {_KEY_BYTES} bytes", hint="Remove it; a new one will be made."
        )
    return SigningKey(key)
