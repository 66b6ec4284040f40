"""``aws.lambda``: one call of a Lambda function."""

from pydantic import Field, JsonValue

from node_types.base import PlatformNodeType
from node_types.support.steps import AWS_SECRETS, AwsAccess, Reported


class LambdaStep(AwsAccess):
    """The call to make."""

    function: str = Field(
        min_length=1,
        max_length=170,
        description="Name or ARN of the function; `name:alias` for one of its versions.",
    )
    event: dict[str, JsonValue] = Field(default={}, description="What the function is called with.")


class AwsLambda(PlatformNodeType[LambdaStep, Reported]):
    """Calls a function and waits for it, at most 15 minutes.

    The output is what it reports through Dagster Pipes, else what it returns.
    """

    name = "aws.lambda"
    version = 1
    effects = "external"
    secret_fields = AWS_SECRETS | {"event"}
    With = LambdaStep
    Output = Reported
