"""``aws.batch`` whose jobs really run, in containers: the fake of AWS starts them by a real
Docker-compatible socket. Skipped, visibly, where none answers."""

import threading
import time
from collections.abc import Generator
from contextlib import suppress
from typing import Any

import pytest

from dynamic_jobs.platforms.aws_batch import BatchPlatform
from dynamic_jobs.platforms.base import StepFailed
from graph_defs.step_policy import AwsSteps, StepPolicy
from node_types.aws_batch import BatchStep
from node_types.base import NodeCancelled
from tests.aws import client, fake_aws, job_queue
from tests.containers.image import IMAGE, make_image
from tests.containers.socket import docker_socket
from tests.dynamic_jobs.steps import Told

pytestmark = pytest.mark.xdist_group("containers")

REGION = "eu-central-1"
POLICY = StepPolicy(aws=AwsSteps(regions=[REGION]))
REPORT = """
import os
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.log.info("from pipes")
    print("from stdout")
    pipes.report_asset_materialization({"rows": 3}, asset_key="lake/quakes")
    doubled = pipes.get_extra("input") * 2
    output = {"doubled": doubled, "key": pipes.get_extra("key"), "mine": os.environ["MINE"]}
    pipes.report_custom_message({"output": output})
"""


@pytest.fixture(scope="module")
def endpoint() -> Generator[str]:
    with docker_socket() as host:
        make_image(host)
        with fake_aws(host) as endpoint:
            yield endpoint


@pytest.fixture
def queue(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return job_queue(REGION, image=IMAGE)


def job(queue: str, *command: str, **more: Any) -> BatchStep:
    return BatchStep(
        region=REGION,
        access_key_id="AKIATENANT",
        secret_access_key="of-the-tenant",
        queue=queue,
        definition="etl",
        command=list(command),
        **more,
    )


def test_a_job_reports_through_pipes(queue: str) -> None:
    told = Told(POLICY)
    given = job(queue, "/bin/python", "-c", REPORT, env={"MINE": "yes"}, input=21)
    output = told.run(BatchPlatform(), given)
    assert output == {"doubled": 42, "key": told.step().context.key, "mine": "yes"}
    assert {"from pipes", "from stdout"} <= set(told.lines)
    assert told.assets == [(["lake", "quakes"], {"rows": 3})]


def test_a_job_that_fails_fails_the_node(queue: str) -> None:
    program = "from dagster_pipes import open_dagster_pipes\nwith open_dagster_pipes(): 1 / 0"
    with pytest.raises(StepFailed, match="ZeroDivisionError: division by zero"):
        Told(POLICY).run(BatchPlatform(), job(queue, "/bin/python", "-c", program))


def test_a_cancelled_job_is_terminated_while_it_runs(queue: str) -> None:
    told, batch = Told(POLICY, node="endless"), client("batch", REGION)

    def run() -> None:
        with suppress(NodeCancelled):
            told.run(BatchPlatform(), job(queue, "/bin/sleep", "600"))

    def described(job_id: str) -> str:
        return batch.describe_jobs(jobs=[job_id])["jobs"][0]["status"]

    thread = threading.Thread(target=run)
    thread.start()
    while not (jobs := batch.list_jobs(jobQueue=queue, jobStatus="RUNNING")["jobSummaryList"]):
        assert thread.is_alive()
        time.sleep(0.02)
    told.ending.set()
    thread.join(60)
    assert not thread.is_alive()
    deadline = time.monotonic() + 60
    while (status := described(jobs[0]["jobId"])) == "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert status == "FAILED"
