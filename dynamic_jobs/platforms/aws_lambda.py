"""``aws.lambda``: one call of a function, through Pipes' client for Lambda."""

import base64
import io
from typing import Any, Final

import orjson
from botocore.exceptions import BotoCoreError, ClientError
from dagster_aws.pipes import PipesLambdaClient, PipesLambdaLogsMessageReader
from pydantic import JsonValue

from dynamic_jobs.platforms.aws import ONCE, aws_session, refused
from dynamic_jobs.platforms.base import Step, StepFailed
from dynamic_jobs.platforms.reports import Reports
from dynamic_jobs.platforms.session import Relay, extras, pipes_context
from node_types.aws_lambda import LambdaStep

EXTRAS: Final = "graphwright"
"""Of the event: what other programs find by ``get_extra``, for Pipes' client passes none."""


class _Answer(Relay, PipesLambdaLogsMessageReader):
    """Reads the last 4 KiB that the function logged, and what it returned.

    That is all that a call gives back, and only at its end. The function holds its messages back
    until then, so that they are among these.
    """

    def __init__(self, reports: Reports) -> None:
        super().__init__(reports, buffered=True)
        self.returned: JsonValue = None
        self.failed = False

    def consume_lambda_logs(self, response: dict[str, Any]) -> None:
        for line in base64.b64decode(response.get("LogResult", "")).splitlines():
            self._reports.line(line)
        payload: bytes = response["Payload"].read()
        response["Payload"] = io.BytesIO(payload)  # the client reads it again of one that failed
        self.failed = "FunctionError" in response
        try:
            self.returned = orjson.loads(payload) if payload else None
        except orjson.JSONDecodeError:
            self.returned = payload.decode("utf-8", "replace")


class LambdaPlatform:
    """Calls and waits. Nothing can end a call: a node that is cancelled is abandoned."""

    def run(self, given: LambdaStep, step: Step) -> JsonValue:
        reports = Reports(step.context, step.limits)
        answer = _Answer(reports)
        try:
            session: Any = aws_session(given, step)
            client = session.client("lambda", config=ONCE)
            PipesLambdaClient(client=client, message_reader=answer).run(
                context=pipes_context(step),
                function_name=given.function,
                event={**given.event, EXTRAS: extras(step, None)},
            )
        except (ClientError, BotoCoreError) as error:
            raise refused(error) from error
        except Exception as error:
            if answer.failed:  # the client has no exception of its own for this
                raise _failed(answer.returned, reports) from error
            raise
        output = reports.result()
        return output if reports.has_output else answer.returned


def _failed(returned: JsonValue, reports: Reports) -> StepFailed:
    told = reports.error
    if not told and isinstance(returned, dict):
        told = f"{returned.get('errorType', 'Error')}: {returned.get('errorMessage', '')}"
    return StepFailed(f"the function failed: {told}"[:2_000])
