"""A real server that speaks S3's protocol and checks signatures: Debian's Swift with its s3api.

Four processes over a temporary folder, run by whoever runs the tests, with one account. Debian's
packages are swift-proxy, swift-account, swift-container and swift-object.
"""

import getpass
import shutil
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.services import free_port

REGION: Final = "us-east-1"
BUCKET: Final = "outputs"
KEY_ID: Final = "test:tester"
SECRET: Final = "testing"
CREDENTIALS: Final[Mapping[str, str]] = {
    "AWS_ACCESS_KEY_ID": KEY_ID,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_EC2_METADATA_DISABLED": "true",
}
_READY_SECONDS: Final = 60.0
_STORES: Final = ("account", "container", "object")

_COMMON: Final = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
workers = 0
fallocate_reserve = 0
"""
_STORE: Final = """
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
_PROXY: Final = f"""
[pipeline:main]
pipeline = catch_errors cache s3api tempauth proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
# Or it would leave the others alone for a minute, since they had not started when it did.
error_suppression_limit = 1000000
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
# tempauth asks for a cache, and does without one that does not answer.
memcache_servers = 127.0.0.1:1
[filter:s3api]
use = egg:swift#s3api
location = {REGION}
s3_acl = false
[filter:tempauth]
use = egg:swift#tempauth
user_{KEY_ID.replace(":", "_")} = {SECRET} .admin
"""
_SWIFT: Final = """
[swift-hash]
swift_hash_path_suffix = suffix
swift_hash_path_prefix = prefix
"""


def url(endpoint: str, prefix: str) -> str:
    """The URL of an object store in the bucket."""
    return f"s3://{BUCKET}/{prefix}?endpoint={quote(endpoint)}&region={REGION}"


@contextmanager
def swift(folder: Path) -> Generator[str]:
    """The endpoint of a server with one empty bucket. Skips where Swift is not installed."""
    if shutil.which("swift-proxy-server") is None:
        pytest.skip("Swift is not installed: apt-get install swift-proxy swift-account …")
    ports = {kind: free_port() for kind in (*_STORES, "proxy")}
    (folder / "devices" / "disk").mkdir(parents=True)
    (folder / "swift.conf").write_text(_SWIFT)
    for kind, port in ports.items():
        common = _COMMON.format(port=port, user=getpass.getuser(), folder=folder)
        own = _PROXY if kind == "proxy" else _STORE.format(kind=kind)
        (folder / f"{kind}.conf").write_text(common + own)
    for kind in _STORES:
        _ring(folder / f"{kind}.builder", ports[kind])
    with ExitStack() as running:
        for kind in ports:
            running.enter_context(_server(kind, folder))
        endpoint = f"http://127.0.0.1:{ports['proxy']}"
        _make_bucket(endpoint, folder)
        yield endpoint


def _ring(builder: Path, port: int) -> None:
    """One replica on one device, two partitions."""
    device = ("--region", "1", "--zone", "1", "--ip", "127.0.0.1", "--port", str(port))
    for command in (
        ("create", "1", "1", "0"),
        ("add", *device, "--device", "disk", "--weight", "1"),
        ("rebalance",),
    ):
        subprocess.run(
            ["swift-ring-builder", str(builder), *command], check=True, capture_output=True
        )


@contextmanager
def _server(kind: str, folder: Path) -> Generator[None]:
    with (folder / f"{kind}.log").open("wb") as log:
        process = subprocess.Popen(
            [f"swift-{kind}-server", str(folder / f"{kind}.conf"), "-v"],
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _make_bucket(endpoint: str, folder: Path) -> None:
    """Once all four answer."""
    session: Any = boto3.Session(KEY_ID, SECRET, region_name=REGION)
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    client = session.client("s3", endpoint_url=endpoint, config=config)
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            with suppress(client.exceptions.BucketAlreadyOwnedByYou):  # the last attempt's
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
            client.delete_object(Bucket=BUCKET, Key="ready")
            break
        except (BotoCoreError, ClientError, OSError) as error:
            if time.monotonic() > deadline:
                logs = {each.name: each.read_text()[-1_000:] for each in folder.glob("*.log")}
                raise RuntimeError(f"Swift does not come up: {error}; {logs}") from error
            time.sleep(0.2)
    client.close()
