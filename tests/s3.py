"""A server that speaks S3's protocol: moto's, in a process of its own. A fake, over real HTTP.

It checks no signature, so it says nothing about credentials: tests/swift.py has a server that does.
"""

import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import pytest

BUCKET = "outputs"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class FakeS3:
    """A server with one empty bucket."""

    endpoint: str
    process: subprocess.Popen[str]

    def url(self, prefix: str) -> str:
        """The URL of an object store in the bucket."""
        return f"s3://{BUCKET}/{prefix}?endpoint={quote(self.endpoint)}&region=us-east-1"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def fake_s3() -> Generator[FakeS3]:
    """A server on a free port of loopback until the block ends. Skips where it does not start."""
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told: list[str] = []
        for line in process.stderr:
            told.append(line)
            if "Running on " in line:
                break
        else:
            pytest.skip(f"moto's server did not start: {''.join(told[-1:])}")
        server = FakeS3(told[-1].rpartition("Running on ")[2].strip(), process)
        reader = threading.Thread(target=process.stderr.read)  # or the pipe would fill up
        reader.start()
        try:
            _make_bucket(server.endpoint)
            yield server
        finally:
            server.stop()
            reader.join()


def _make_bucket(endpoint: str) -> None:
    session: Any = boto3.Session("test", "test", region_name="us-east-1")
    client = session.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket=BUCKET)
    client.close()
