"""A server that speaks the protocol of AWS KMS: moto's, over real HTTP. A fake.

It checks neither signatures nor rights.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import boto3

from tests.s3 import FakeS3, fake_s3

REGION = "eu-central-1"


@dataclass(frozen=True)
class FakeKms:
    """A server whose keys one makes oneself."""

    server: FakeS3
    client: Any

    def make_key(self) -> str:
        """The ARN of a new symmetric key."""
        return self.client.create_key()["KeyMetadata"]["Arn"]

    def url(self, key: str) -> str:
        """The setting that names this key: an ARN, an id, or ``alias/NAME``."""
        return f"awskms://{key}?endpoint={quote(self.server.endpoint)}&region={REGION}"


@contextmanager
def fake_kms() -> Generator[FakeKms]:
    """A server on a free port of loopback until the block ends. Skips where it does not start."""
    with fake_s3() as server:
        session: Any = boto3.Session("test", "test", region_name=REGION)
        client = session.client("kms", endpoint_url=server.endpoint)
        yield FakeKms(server, client)
        client.close()
