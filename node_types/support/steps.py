"""What the node types whose work is done elsewhere have in common."""

from typing import Annotated

from pydantic import Field, JsonValue, RootModel

from foundation.quantity import Cpu, Memory
from node_types.base import Fields

Variable = Annotated[str, Field(max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

Reported = RootModel[JsonValue]
"""What the step reported last as its ``output`` through Dagster Pipes; else null."""


class ReportingStep(Fields):
    """A step that runs a program of the author's own, which may report through Dagster Pipes."""

    env: dict[Variable, str] = Field(
        default={},
        max_length=256,
        description="The program's environment. Beside the two variables of Dagster Pipes it has "
        "no others of ours.",
    )
    input: JsonValue = Field(
        default=None,
        description="What the program finds by `context.get_extra('input')` of Dagster Pipes.",
    )


class ImageStep(ReportingStep):
    """An image, and how to run it."""

    image: str = Field(
        min_length=1,
        max_length=512,
        pattern=r"^[A-Za-z0-9][^\s]*$",
        description="One that the operator allows.",
    )
    command: list[str] = Field(
        default=[], description="What is run; by default, the image's own entrypoint."
    )
    args: list[str] = Field(default=[], description="Arguments of it; by default, the image's own.")
    cpu: Cpu = Field(
        default="1",
        description="CPUs, such as `500m`; by default no more than the operator allows.",
    )
    memory: Memory = Field(
        default="512Mi",
        description="Bytes, such as `2Gi`; by default no more than the operator allows.",
    )
    user: int = Field(
        default=65534, ge=1, le=2**31 - 1, description="User id that it runs as; never root."
    )


class AwsAccess(Fields):
    """Where on AWS, and as whom: by keys of the tenant's, by a role, or by keys for a role."""

    region: str = Field(
        max_length=32, pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$", description="Such as `eu-central-1`."
    )
    access_key_id: str | None = Field(
        default=None, min_length=1, max_length=128, description="Usually `${{ secrets.NAME }}`."
    )
    secret_access_key: str | None = Field(
        default=None, min_length=1, max_length=256, description="Usually `${{ secrets.NAME }}`."
    )
    session_token: str | None = Field(
        default=None, min_length=1, max_length=8192, description="Where the keys are temporary."
    )
    role: str | None = Field(
        default=None,
        max_length=256,
        pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$",
        description="ARN of a role to assume, one that the operator allows.",
    )


AWS_SECRETS = frozenset({"access_key_id", "secret_access_key", "session_token"})
