"""``aws.lambda`` and ``aws.batch`` against a fake that echoes: see ``tests/aws.py``."""

import base64
import io
import threading
import time
import zipfile
from collections.abc import Generator
from typing import Any

import orjson
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from dynamic_jobs.platforms import aws_batch, aws_lambda, patience
from dynamic_jobs.platforms.aws import aws_session
from dynamic_jobs.platforms.aws_batch import BatchPlatform
from dynamic_jobs.platforms.aws_lambda import LambdaPlatform
from dynamic_jobs.platforms.base import PlatformAway, StepFailed, StepNotAllowed, StepNotStarted
from dynamic_jobs.platforms.reports import Reports
from graph_defs.step_policy import AwsSteps, StepPolicy
from node_types.aws_batch import BatchStep
from node_types.aws_lambda import LambdaStep
from node_types.base import NodeCancelled
from tests.aws import client, expiring_aws, fake_aws, job_queue
from tests.dynamic_jobs.steps import Told

REGION = "eu-central-1"
ROLE = "arn:aws:iam::123456789012:role/etl"
POLICY = StepPolicy(aws=AwsSteps(regions=[REGION], roles=[ROLE]))
KEYS: dict[str, Any] = {
    "region": REGION,
    "access_key_id": "AKIATENANT",
    "secret_access_key": "of-the-tenant",
}

TRUST = '{"Version": "2012-10-17", "Statement": []}'


@pytest.fixture(scope="module")
def endpoint() -> Generator[str]:
    with fake_aws() as endpoint:
        yield endpoint


@pytest.fixture
def aws(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the platforms find: the server, and a worker with credentials of its own."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWORKER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-worker")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return endpoint


@pytest.fixture
def function(aws: str) -> str:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("main.py", "def handler(event, context): return event")
    iam, functions = client("iam", REGION), client("lambda", REGION)
    try:
        iam.create_role(RoleName="runner", AssumeRolePolicyDocument=TRUST)
        functions.create_function(
            FunctionName="echo",
            Runtime="python3.11",
            Handler="main.handler",
            Role="arn:aws:iam::123456789012:role/runner",
            Code={"ZipFile": content.getvalue()},
        )
    except (iam.exceptions.EntityAlreadyExistsException, functions.exceptions.ClientError):
        pass
    return "echo"


def test_a_function_is_called_and_what_it_returns_is_the_output(function: str) -> None:
    told = Told(POLICY)
    given = LambdaStep(function=function, event={"rows": [1, 2]}, **KEYS)
    output: Any = told.run(LambdaPlatform(), given)
    assert output["rows"] == [1, 2]
    assert output["graphwright"]["key"] == told.step().context.key
    assert {"DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES"} <= output.keys()


def test_what_aws_refuses_fails_the_node(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StepNotStarted, match="AWS refused"):
        Told(POLICY).run(BatchPlatform(), BatchStep(queue="none", definition="none", **KEYS))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(PlatformAway):
        Told(POLICY).run(LambdaPlatform(), LambdaStep(function="none", **KEYS))


def test_messages_come_from_the_tail_of_a_function_s_log() -> None:
    told = Told(POLICY)
    reports = Reports(told.step().context, told.step().limits)
    answer = aws_lambda._Answer(reports)  # pyright: ignore[reportPrivateUsage]
    message = {"__dagster_pipes_version": "0.1", "method": "report_custom_message"}
    lines = [b"START", orjson.dumps({**message, "params": {"payload": {"output": 7}}})]
    response = {
        "LogResult": base64.b64encode(b"\n".join(lines)).decode(),
        "Payload": io.BytesIO(b'{"errorType": "ValueError", "errorMessage": "boom"}'),
        "FunctionError": "Unhandled",
    }
    answer.consume_lambda_logs(response)
    assert (reports.output, told.lines, answer.failed) == (7, ["START"], True)
    assert response["Payload"].read()  # pyright: ignore - the client reads it again


def test_only_the_tenant_s_keys_or_an_allowed_role_are_used(aws: str) -> None:
    def keys(given: LambdaStep, **more: Any) -> Any:
        session: Any = aws_session(given, Told(POLICY, **more).step())
        return session.get_credentials()

    assert keys(LambdaStep(function="f", **KEYS)).access_key == "AKIATENANT"
    assumed = keys(LambdaStep(function="f", role=ROLE, **KEYS))
    assert assumed.access_key != "AKIATENANT"
    assert assumed.token
    by_role = LambdaStep(function="f", region=REGION, role=ROLE)
    with pytest.raises(StepNotAllowed, match="no AWS credentials"):
        keys(by_role)
    assert keys(by_role, aws_worker_credentials=True).token
    with pytest.raises(StepNotAllowed, match="no AWS credentials"):
        keys(LambdaStep(function="f", region=REGION), aws_worker_credentials=True)
    with pytest.raises(StepNotAllowed, match="the role"):
        keys(LambdaStep(function="f", role=f"{ROLE}-other", **KEYS))
    elsewhere: dict[str, Any] = {**KEYS, "region": "us-east-1"}
    with pytest.raises(StepNotAllowed, match="the region"):
        keys(LambdaStep(function="f", **elsewhere))
    with pytest.raises(StepNotAllowed, match="does not allow AWS"):
        aws_session(by_role, Told(StepPolicy()).step())


@pytest.fixture
def queue(aws: str) -> str:
    return job_queue(REGION, image="busybox")


def test_a_job_is_submitted_and_followed(queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws_batch, "_REST_SECONDS", 0)  # its program does not speak Pipes
    told = Told(POLICY)
    given = BatchStep(queue=queue, definition="etl", env={"MINE": "yes"}, command=["go"], **KEYS)
    assert told.run(BatchPlatform(), given) is None
    (job,) = client("batch", REGION).list_jobs(jobQueue=queue, jobStatus="SUCCEEDED")[
        "jobSummaryList"
    ]
    assert job["jobName"] == f"graphwright-{told.step().context.run_id}-step"


def test_a_role_is_assumed_again_when_its_credentials_expire_and_not_before(
    queue: str, aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws_batch, "_REST_SECONDS", 0)
    given = BatchStep(queue=queue, definition="etl", role=ROLE, **KEYS)
    with expiring_aws(aws) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        told = Told(POLICY)
        assert told.run(BatchPlatform(), given) is None
        first, second = server.assumed
        assert server.used[0] == first
        assert set(server.used[1:]) == {second}
        assert len(server.used) > 2
        session: Any = aws_session(given, told.step())
        for _ in range(5):
            session.client("batch").describe_job_queues()
        assert len(server.assumed) == 3


class RunningJob:
    """Of the client for Batch what following a job calls: moto's jobs are never under way."""

    def __init__(self, *answers: Any) -> None:
        """``answers`` come first: errors, or what is known of the job."""
        self.status = "RUNNING"
        self.terminated = 0
        self._answers = list(answers)
        self.looked_at = threading.Event()

    def describe_jobs(self, jobs: list[str]) -> Any:
        self.looked_at.set()
        if self._answers:
            answer = self._answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        container = {"exitCode": 3} if self.status == "FAILED" else {"logStreamName": "late"}
        return {"jobs": [{"status": self.status, "container": container}]}

    def terminate_job(self, jobId: str, reason: str) -> None:  # noqa: N803 - AWS's name
        self.terminated += 1
        self.status = "FAILED"


class LateLogs:
    """Of the client for CloudWatch: it has each line only when it is asked again."""

    class exceptions:  # noqa: N801 - AWS's name
        class ResourceNotFoundException(Exception):
            pass

    def __init__(self, *lines: bytes) -> None:
        self._lines = list(lines)
        self._token = 0

    def get_log_events(self, **given: Any) -> Any:
        more = self._token == int(given.get("nextToken", -1))
        events: list[Any] = []
        if more and self._lines:
            events = [{"message": self._lines.pop(0).decode()}]
            self._token += 1
        return {"events": events, "nextForwardToken": str(self._token)}


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "DescribeJobs")


def follow(job: RunningJob, told: Told, logs: Any) -> Reports:
    step = told.step()
    reports = Reports(step.context, step.limits)
    aws_batch._follow(job, "job", step, aws_batch._Log(logs, reports))  # pyright: ignore
    return reports


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_PAUSE_SECONDS", 0)
    monkeypatch.setattr(aws_batch, "_POLL_SECONDS", 0)


def test_a_job_is_followed_while_aws_is_busy_until_its_log_is_whole(at_once: None) -> None:
    pipes = {"__dagster_pipes_version": "0.1"}
    output = {**pipes, "method": "report_custom_message", "params": {"payload": {"output": 7}}}
    closed: dict[str, Any] = {**pipes, "method": "closed", "params": {}}
    logs = LateLogs(orjson.dumps(output), orjson.dumps(closed))
    job = RunningJob(
        refused("ThrottlingException"), EndpointConnectionError(endpoint_url="aws"),
        {"jobs": [{"status": "RUNNING", "container": {}}]}, refused("ThrottlingException"),
    )  # fmt: skip
    job.status = "SUCCEEDED"
    assert follow(job, Told(POLICY), logs).result() == 7
    assert job.terminated == 0


def test_a_job_that_is_followed_no_more_is_terminated(
    at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = RunningJob({"jobs": []})
    with pytest.raises(PlatformAway, match="does not know the job"):
        follow(job, Told(POLICY), LateLogs())
    assert job.terminated == 1
    job = RunningJob(refused("AccessDeniedException"))
    with pytest.raises(ClientError):
        follow(job, Told(POLICY), LateLogs())
    assert job.terminated == 1
    monkeypatch.setattr(patience, "AWAY_SECONDS", 0)
    job = RunningJob(refused("ThrottlingException"))
    with pytest.raises(ClientError):
        follow(job, Told(POLICY), LateLogs())
    assert job.terminated == 1


def test_a_cancelled_job_is_terminated_and_a_failed_one_fails(aws: str) -> None:
    told, job = Told(POLICY), RunningJob()

    def cancel() -> None:
        job.looked_at.wait()
        told.ending.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(NodeCancelled):
        follow(job, told, client("logs", REGION))
    thread.join()
    assert job.status == "FAILED"
    with pytest.raises(StepFailed, match="exit code 3"):
        follow(job, Told(POLICY), client("logs", REGION))


def test_each_line_that_a_job_logs_is_told_once(aws: str) -> None:
    told, logs = Told(POLICY), client("logs", REGION)
    log = aws_batch._Log(logs, Reports(told.step().context, told.step().limits))  # pyright: ignore
    log.read("stream")  # there is none yet
    logs.create_log_group(logGroupName="/aws/batch/job")
    logs.create_log_stream(logGroupName="/aws/batch/job", logStreamName="stream")

    def write(*lines: str) -> None:
        events = [
            {"timestamp": int(time.time() * 1_000) + n, "message": line}
            for n, line in enumerate(lines)
        ]
        logs.put_log_events(logGroupName="/aws/batch/job", logStreamName="stream", logEvents=events)

    write("one", "two")
    log.read("stream")
    log.read("stream")
    write("three")
    log.read("stream")
    assert told.lines == ["one", "two", "three"]
