"""A server that speaks AWS's protocols: moto's, in a process of its own. A fake, over real HTTP.

Of Lambda it only echoes: a function answers with what it was called with. A job of Batch succeeds
at once and runs nothing, unless there is a Docker-compatible socket to run its container by. It
checks no credentials, but tells which came.
"""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

_SECONDS = 60
"""moto imports a service when it is first asked of it, which takes seconds."""
_TRUST = '{"Version": "2012-10-17", "Statement": []}'


@contextmanager
def fake_aws(docker_host: str | None = None) -> Generator[str]:
    """The endpoint of a server on a free port of loopback, until the block ends.

    Jobs of Batch are run in containers without a network by ``docker_host``, if it is given.
    """
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", "0"]
    by_docker = {"batch": {"use_docker": docker_host is not None}, "lambda": {"use_docker": False}}
    environment = {**os.environ, "MOTO_DOCKER_NETWORK_MODE": "none"}
    if docker_host is not None:
        environment["DOCKER_HOST"] = docker_host
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "Running on " in line:
                break
        else:
            pytest.skip("moto's server did not start")
        endpoint = line.rpartition("Running on ")[2].strip()
        reader = threading.Thread(target=process.stderr.read)  # or the pipe would fill up
        reader.start()
        try:
            answer = httpx.post(
                f"{endpoint}/moto-api/config", json=by_docker, trust_env=False, timeout=_SECONDS
            )
            answer.raise_for_status()
            yield endpoint
        finally:
            process.kill()
            process.wait()
            reader.join()


def client(service: str, region: str) -> Any:
    """Of whoever looks after the account, at the endpoint that the environment names."""
    session: Any = boto3.Session("test", "test", region_name=region)
    return session.client(service)


def job_queue(region: str, **container: Any) -> str:
    """A queue of Batch, and a definition ``etl`` of jobs with such a container."""
    batch = client("batch", region)
    if not batch.describe_job_queues(jobQueues=["steps"])["jobQueues"]:
        role = client("iam", region).create_role(RoleName="batch", AssumeRolePolicyDocument=_TRUST)
        made = batch.create_compute_environment(
            computeEnvironmentName="all",
            type="UNMANAGED",
            state="ENABLED",
            serviceRole=role["Role"]["Arn"],
        )
        order = [{"order": 1, "computeEnvironment": made["computeEnvironmentArn"]}]
        batch.create_job_queue(
            jobQueueName="steps", state="ENABLED", priority=1, computeEnvironmentOrder=order
        )
        batch.register_job_definition(
            jobDefinitionName="etl",
            type="container",
            containerProperties={"vcpus": 1, "memory": 128, **container},
        )
    return "steps"


class ExpiringAws(ThreadingHTTPServer):
    """Stands before the fake. Of the first credentials of a role it says that they expire in a
    minute, takes one request that is signed with them, and refuses what comes after it."""

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Expiring)
        self.behind = behind
        self.endpoint = "http://{}:{}".format(*self.server_address)
        self.assumed: list[str] = []
        """The access keys that were given for roles."""
        self.used: list[str] = []
        """The access key of each other request."""


class _Expiring(BaseHTTPRequestHandler):
    server: ExpiringAws  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        signed = re.search("Credential=([^/]+)", self.headers.get("Authorization", ""))
        key = "" if signed is None else signed[1]
        assumes = b"Action=AssumeRole" in body
        if not assumes:
            self.server.used.append(key)
        if key in self.server.assumed[:1] and self.server.used.count(key) > 1:
            self._answer(403, {"x-amzn-ErrorType": "ExpiredTokenException"}, b"{}")
            return
        url = self.server.behind + self.path
        answer = httpx.post(
            url, content=body, headers=dict(self.headers), trust_env=False, timeout=_SECONDS
        )
        content = self._noted(answer.content) if assumes else answer.content
        kind = {"Content-Type": answer.headers.get("Content-Type", "application/json")}
        self._answer(answer.status_code, kind, content)

    def _noted(self, content: bytes) -> bytes:
        key = re.search(b"<AccessKeyId>(.+)</AccessKeyId>", content)
        assert key is not None, content
        self.server.assumed.append(key[1].decode())
        if len(self.server.assumed) > 1:
            return content
        soon = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
        told = b"<Expiration>" + soon.encode() + b"</Expiration>"
        return re.sub(b"<Expiration>.+</Expiration>", told, content)

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass


@contextmanager
def expiring_aws(behind: str) -> Generator[ExpiringAws]:
    """One that stands before this endpoint, until the block ends."""
    with ExpiringAws(behind) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
