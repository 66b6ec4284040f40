"""A master key that never leaves AWS KMS."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from foundation.ids import TenantId
from foundation.secret_store.base import MasterKeyAway, MasterKeyFault, Wrapped

_AWAY: Final = frozenset(
    {"DependencyTimeoutException", "KMSInternalException", "ThrottlingException"}
)


class AwsKms:
    """A symmetric key of KMS; ids of master keys are ARNs.

    It needs ``kms:Encrypt`` and ``kms:Decrypt``. KMS renews the key itself under the same ARN.
    Where the setting has come to name another key, or its alias stands for another, that one is
    current, and the former one still decrypts.

    Credentials are found as boto3 finds them: environment, files, the role of the machine or pod.
    """

    def __init__(self, key: str, *, endpoint: str | None = None, region: str | None = None) -> None:
        """``key`` is an ARN, a key's id or ``alias/NAME``; ``endpoint`` is not Amazon's own."""
        self._key = key
        self._endpoint = endpoint
        self._region = region or (key.split(":")[3] if key.startswith("arn:") else None)
        self._made: Any = None
        self._lock = threading.Lock()

    def wrap(self, tenant: TenantId, data_key: bytes) -> Wrapped:
        with self._translated():
            answer = self._client().encrypt(
                KeyId=self._key, Plaintext=data_key, EncryptionContext=_context(tenant)
            )
        return Wrapped(answer["KeyId"], answer["CiphertextBlob"])

    def unwrap(self, tenant: TenantId, wrapped: Wrapped) -> bytes:
        with self._translated():
            answer = self._client().decrypt(
                KeyId=wrapped.master_key,
                CiphertextBlob=wrapped.data,
                EncryptionContext=_context(tenant),
            )
        return answer["Plaintext"]

    def current(self) -> str:
        # What it encrypts is thrown away: the answer names the key, and needs no further right.
        return self.wrap(TenantId(""), b"\0").master_key

    def holds(self, master_key: str) -> bool:
        return master_key.startswith("arn:")

    def renew(self) -> None:
        """KMS renews keys by itself."""

    def retire(self) -> bool:
        """A former key is disabled in KMS, by whoever may."""
        return True

    def close(self) -> None:
        with self._lock:
            client, self._made = self._made, None
        if client is not None:
            client.close()

    def _client(self) -> Any:
        """boto3's client, which any thread may use; made on first use, so after a fork."""
        with self._lock:
            if self._made is None:
                config = Config(
                    connect_timeout=5,
                    read_timeout=10,
                    retries={"mode": "standard", "total_max_attempts": 3},
                )
                session: Any = boto3.Session(region_name=self._region)
                self._made = session.client("kms", endpoint_url=self._endpoint, config=config)
            return self._made

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except ClientError as error:
            kind = MasterKeyAway if _code(error) in _AWAY else MasterKeyFault
            raise kind(f"KMS refuses: {error}", hint=self._hint) from error
        except BotoCoreError as error:
            raise MasterKeyAway(f"KMS cannot be asked: {error}", hint=self._hint) from error

    @property
    def _hint(self) -> str:
        return f"Is {self._key} there and enabled, and may this process encrypt and decrypt by it?"


def _code(error: ClientError) -> str:
    response: Any = error.response
    return str(response.get("Error", {}).get("Code"))


def _context(tenant: TenantId) -> dict[str, str]:
    """Bound to the ciphertext, and in CloudTrail with each use."""
    return {"purpose": "graphwright data key", "tenant": tenant}
