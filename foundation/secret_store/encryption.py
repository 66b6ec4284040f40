"""AES-256-GCM (NIST SP 800-38D) as both layers of the envelope use it."""

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
"""Random nonces of 96 bits: good for 2**32 values under one key (section 8.3)."""


class Tampered(Exception):
    """Not what was sealed under this key, in this context."""


def seal(key: bytes, plain: bytes, *context: str) -> bytes:
    """Nonce and ciphertext. ``context`` says what it is of, without NUL; it is not part of it."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, _bytes(context))


def unseal(key: bytes, sealed: bytes, *context: str) -> bytes:
    """What :func:`seal` was given. Raises Tampered for another key or context, or a changed bit."""
    if len(sealed) <= _NONCE_BYTES:
        raise Tampered
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bytes(context))
    except InvalidTag:
        raise Tampered from None


def _bytes(context: tuple[str, ...]) -> bytes:
    return "\0".join(context).encode()
