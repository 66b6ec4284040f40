"""``aws.batch``: a job of AWS Batch."""

from pydantic import Field

from node_types.base import PlatformNodeType
from node_types.support.steps import AWS_SECRETS, AwsAccess, Reported, ReportingStep


class BatchStep(AwsAccess, ReportingStep):
    """The job to submit."""

    queue: str = Field(min_length=1, max_length=256, description="Name or ARN of the job queue.")
    definition: str = Field(
        min_length=1,
        max_length=256,
        description="Name or ARN of the job definition; `name:3` for a revision.",
    )
    command: list[str] = Field(
        default=[], description="What the job runs; by default, what its definition says."
    )


class AwsBatch(PlatformNodeType[BatchStep, Reported]):
    """Submits a job and follows it to its end.

    The output is what it reports through Dagster Pipes, else null.
    """

    name = "aws.batch"
    version = 1
    effects = "external"
    secret_fields = AWS_SECRETS | {"env"}
    With = BatchStep
    Output = Reported
