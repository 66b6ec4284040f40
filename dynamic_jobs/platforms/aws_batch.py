"""``aws.batch``: a job, followed to its end. Pipes has no client for Batch: its session is used."""

import logging
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from dagster._core.pipes.utils import open_pipes_session
from pydantic import JsonValue

from dynamic_jobs.platforms.aws import aws_session, passes, refused
from dynamic_jobs.platforms.base import MAX_STEP_SECONDS, PlatformAway, Step, StepFailed
from dynamic_jobs.platforms.patience import Patience
from dynamic_jobs.platforms.reports import Reports
from dynamic_jobs.platforms.session import BoundedEnvInjector, Relay, extras, pipes_context
from node_types.aws_batch import BatchStep
from node_types.base import NodeCancelled

_logger = logging.getLogger(__name__)

_POLL_SECONDS: Final = 2.0
_REST_SECONDS: Final = 10.0
"""For what the job has logged last, once it has ended: CloudWatch has it seconds later."""
_EVENT_BYTES: Final = 256 * 2**10 - 26
"""Of an event of CloudWatch: a longer line becomes several."""
_UNDER_WAY: Final = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
_LOG_GROUP: Final = "/aws/batch/job"
"""Where Batch's jobs log, unless their definition says otherwise."""


class BatchPlatform:
    """Submits a job under a name of the node's own, by which it is found again."""

    def run(self, given: BatchStep, step: Step) -> JsonValue:
        reports = Reports(step.context, step.limits)
        try:
            session: Any = aws_session(given, step)
            batch: Any = session.client("batch")
            _end_earlier(batch, given.queue, _name(step))
            with open_pipes_session(
                context=pipes_context(step),
                context_injector=BoundedEnvInjector(),
                message_reader=Relay(reports),
                extras=extras(step, given.input),
            ) as pipes:
                env = {**pipes.get_bootstrap_env_vars(), **given.env}
                log = _Log(session.client("logs"), reports)
                _follow(batch, _submit(batch, given, step, env), step, log)
        except (ClientError, BotoCoreError) as error:
            raise refused(error) from error
        return reports.result()


def _name(step: Step) -> str:
    return f"graphwright-{step.context.run_id}-{step.labels['graphwright.dev/node']}"


def _end_earlier(batch: Any, queue: str, name: str) -> None:
    """A worker that was killed has left its job."""
    for page in batch.get_paginator("list_jobs").paginate(
        jobQueue=queue, filters=[{"name": "JOB_NAME", "values": [name]}]
    ):
        for job in page["jobSummaryList"]:
            if job.get("status") in _UNDER_WAY:
                batch.terminate_job(jobId=job["jobId"], reason="its worker was lost")


def _submit(batch: Any, given: BatchStep, step: Step, env: dict[str, str]) -> str:
    overrides: dict[str, Any] = {
        "environment": [{"name": name, "value": value} for name, value in env.items()]
    }
    if given.command:
        overrides["command"] = given.command
    answer = batch.submit_job(
        jobName=_name(step),
        jobQueue=given.queue,
        jobDefinition=given.definition,
        containerOverrides=overrides,
        retryStrategy={"attempts": 1},
        timeout={"attemptDurationSeconds": MAX_STEP_SECONDS},
        tags=step.labels,
    )
    return str(answer["jobId"])


def _follow(batch: Any, job: str, step: Step, log: "_Log") -> None:
    """Until the job has ended; if it has not, it is terminated on the way out.

    Raises StepFailed, NodeCancelled, PlatformAway and what botocore does.
    """
    with _terminating(batch, job):
        described = _ended(batch, job, step, log)
        container = described.get("container", {})
        _read_rest(log, container.get("logStreamName"), step)
    if described["status"] == "FAILED":
        raise _failed(described, container, log.reports)


def _ended(batch: Any, job: str, step: Step, log: "_Log") -> Any:
    """What AWS says of the job, once it has ended."""
    patience = Patience(step.ending)
    while True:
        try:
            jobs = batch.describe_jobs(jobs=[job])["jobs"]
            if jobs:
                log.read(jobs[0].get("container", {}).get("logStreamName"))
        except (ClientError, BotoCoreError) as error:
            if not passes(error):
                raise
            patience.away(error)
            continue
        patience.answered()
        if step.ending.is_set():
            raise NodeCancelled("the job was terminated")
        if not jobs:
            raise PlatformAway(f"AWS Batch does not know the job {job}")
        if jobs[0]["status"] not in _UNDER_WAY:
            return jobs[0]
        step.ending.wait(_POLL_SECONDS)


@contextmanager
def _terminating(batch: Any, job: str) -> Generator[None]:
    """Nobody will follow the job any more if the block fails."""
    try:
        yield
    except BaseException:
        try:
            batch.terminate_job(jobId=job, reason="its node has ended")
        except (ClientError, BotoCoreError):
            _logger.warning("the job %s may go on", job, exc_info=True)
        raise


def _read_rest(log: "_Log", stream: str | None, step: Step) -> None:
    """Until the program has closed its session of Pipes; it may have none."""
    deadline = time.monotonic() + _REST_SECONDS
    while stream is not None and not log.reports.closed and time.monotonic() < deadline:
        step.ending.wait(_POLL_SECONDS)
        try:
            log.read(stream)
        except (ClientError, BotoCoreError) as error:
            if not passes(error):
                raise


def _failed(described: Any, container: Any, reports: Reports) -> StepFailed:
    told = reports.error or container.get("reason") or described.get("statusReason") or ""
    code = container.get("exitCode")
    with_code = "the job failed" if code is None else f"the job ended with exit code {code}"
    return StepFailed(f"{with_code}: {told}" if told else with_code)


class _Log:
    """What the job has logged since the last look."""

    def __init__(self, logs: Any, reports: Reports) -> None:
        self._logs = logs
        self._token: str | None = None
        self.reports = reports

    def read(self, stream: str | None) -> None:
        """Feed the events that are new; there may be no such stream yet."""
        if stream is None:
            return
        try:
            for event in self._events(stream):
                message = str(event["message"]).encode()
                for line in message.splitlines():
                    self.reports.line(line, len(message) >= _EVENT_BYTES)
        except self._logs.exceptions.ResourceNotFoundException:
            return

    def _events(self, stream: str) -> Iterator[Any]:
        while True:
            more = {} if self._token is None else {"nextToken": self._token}
            page = self._logs.get_log_events(
                logGroupName=_LOG_GROUP, logStreamName=stream, startFromHead=True, **more
            )
            yield from page["events"]
            if page["nextForwardToken"] == self._token:
                return
            self._token = page["nextForwardToken"]
