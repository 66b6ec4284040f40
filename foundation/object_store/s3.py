"""Objects in a bucket of S3, or of anything that speaks its protocol."""

import base64
import hashlib
import threading
from collections.abc import Collection, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from foundation.object_store.base import ObjectMissing, ObjectStoreAway

_DELETED_AT_ONCE: Final = 1_000
"""As many as S3's DeleteObjects takes."""
_CONNECTIONS: Final = 64


class S3Store:
    """A bucket, which must exist. S3 keeps a value before it answers that it has it.

    Credentials are found as boto3 finds them: environment, files, the role of the machine or pod.
    """

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        endpoint: str | None = None,
        region: str | None = None,
    ) -> None:
        """``prefix`` comes before every key; ``endpoint`` is a server other than Amazon's."""
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint = endpoint
        self._region = region
        self._made: Any = None
        self._lock = threading.Lock()

    def put(self, key: str, data: bytes) -> None:
        with self._translated():
            self._client().put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data)

    def get(self, key: str) -> bytes:
        with self._translated():
            try:
                found = self._client().get_object(Bucket=self._bucket, Key=self._prefix + key)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") != "NoSuchKey":
                    raise
                raise ObjectMissing(f"there is no object {key}") from None
            with closing(found["Body"]) as body:
                return body.read()

    def link(self, key: str, seconds: int, content_type: str) -> str | None:
        with self._translated():
            given = {
                "Bucket": self._bucket,
                "Key": self._prefix + key,
                "ResponseContentType": content_type,
            }
            return self._client().generate_presigned_url("get_object", given, ExpiresIn=seconds)

    def keys(self, folder: str) -> Iterator[str]:
        with self._translated():
            pages = self._client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=f"{self._prefix}{folder}/"):
                for found in page.get("Contents", ()):
                    yield found["Key"].removeprefix(self._prefix)

    def delete(self, keys: Collection[str]) -> None:
        names = [{"Key": self._prefix + key} for key in keys]
        with self._translated():
            for start in range(0, len(names), _DELETED_AT_ONCE):
                batch = {"Objects": names[start : start + _DELETED_AT_ONCE], "Quiet": True}
                done = self._client().delete_objects(Bucket=self._bucket, Delete=batch)
                if refused := done.get("Errors"):
                    raise ObjectStoreAway(
                        f"{len(refused)} objects are not deleted: {refused[0].get('Message')}",
                        hint=self._hint,
                    )

    def close(self) -> None:
        with self._lock:
            client, self._made = self._made, None
        if client is not None:
            client.close()

    @property
    def _hint(self) -> str:
        return f"Is the bucket {self._bucket} there, and do the credentials of this process fit?"

    def _client(self) -> Any:
        """boto3's client, which any thread may use; made on first use, so after a fork."""
        with self._lock:
            if self._made is None:
                self._made = s3_client(self._endpoint, self._region)
            return self._made

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise ObjectStoreAway(
                f"the bucket of objects cannot be used: {error}", hint=self._hint
            ) from error


def s3_client(endpoint: str | None, region: str | None) -> Any:
    """boto3's client of Amazon's S3 or of another server, with our time limits."""
    config = Config(
        connect_timeout=5,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=_CONNECTIONS,
        signature_version="s3v4",
    )
    if endpoint is not None:
        # Not every server has a host name for each bucket, or Amazon's new checksums.
        config = config.merge(
            Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            )
        )
    session: Any = boto3.Session(region_name=region)
    client: Any = session.client("s3", endpoint_url=endpoint, config=config)
    if endpoint is not None:
        client.meta.events.register("before-call.s3.DeleteObjects", _add_md5)
    return client


def _add_md5(params: dict[str, Any], **_: Any) -> None:
    """What DeleteObjects had to have before checksums, and other servers still ask for."""
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()
