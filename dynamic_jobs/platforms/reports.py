"""What a step tells: messages of Dagster Pipes, and lines of its own.

Both come from a program of the author's. What does not fit is told as a line of the step's log.
"""

import threading
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import orjson
from dagster import AssetKey
from dagster._core.pipes.context import PipesMessageHandler
from dagster_pipes import PIPES_PROTOCOL_VERSION_FIELD
from pydantic import BaseModel, Field, JsonValue, ValidationError

from dynamic_jobs.platforms.base import StepLimits
from dynamic_jobs.platforms.lines import MAX_MESSAGE_BYTES
from node_types.base import NodeContext, OutputTooLarge

_LINE_CHARACTERS: Final = 16_384
"""Of a longer line the rest is left out of its event."""
_ERROR_CHARACTERS: Final = 2_000

_LOG_CHARACTERS: Final = 16 * 2**20
_ASSETS: Final = 1_000
_ASSET_BYTES: Final = 16 * 2**20
"""What one attempt may log (beside a number of lines), and have materialized. Two budgets, or one
that logs much would lose what it reports at its end."""

_MARK: Final = PIPES_PROTOCOL_VERSION_FIELD.encode()


class _Log(BaseModel):
    message: str
    level: str = "info"


class _Stdio(BaseModel):
    stream: Literal["stdout", "stderr"]
    text: str


class _Metadata(BaseModel):
    raw_value: Any = None  # of JSON, and not validated: that would copy it


class _Materialization(BaseModel):
    asset_key: str = Field(min_length=1, max_length=2048)
    metadata: dict[str, _Metadata] | None = None


class _Check(BaseModel):
    asset_key: str
    check_name: str
    passed: bool


class _Custom(BaseModel):
    payload: Any


class _Exception(BaseModel):
    name: str | None = None
    message: str = ""


class _Closed(BaseModel):
    exception: _Exception | None = None


@dataclass
class _Budget:
    """What a step may still tell of one kind."""

    what: str
    number: int
    size: int
    spent: bool = False


class Reports:
    """What one attempt of a step has told so far. Threads may tell it more at once.

    It stands between Pipes' readers and Pipes' own handler, which would keep everything until the
    step has ended, and write to the worker's stdout what is no message.
    """

    def __init__(self, context: NodeContext, limits: StepLimits) -> None:
        self._context = context
        self._lines = _Budget("lines", limits.log_lines, _LOG_CHARACTERS)
        self._assets = _Budget("materializations", _ASSETS, _ASSET_BYTES)
        self._too_large = False
        self._handler: PipesMessageHandler | None = None
        self._lock = threading.RLock()
        self.output: JsonValue = None
        """Of the last message that had one."""
        self.has_output = False
        self.error = ""
        """What the program's session of Pipes was closed with."""
        self.closed = False
        """Whether it was closed: then no message comes any more."""

    def attach(self, handler: PipesMessageHandler) -> None:
        """The session that is told when the program has opened and closed its own."""
        self._handler = handler

    def result(self) -> JsonValue:
        """The output of a step that has ended. Raises OutputTooLarge."""
        if self._too_large:
            raise OutputTooLarge(
                f"a message of the step takes more than {MAX_MESSAGE_BYTES:,} bytes, or more than "
                "its log takes in one piece",
                hint="Report where the data is, instead of what it is.",
            )
        return self.output

    def line(self, line: bytes, cut: bool = False) -> None:
        """A line that the program wrote, without its end: a message, or one of its own.

        ``cut``: the line is longer than this. A message then fails the step, for it may be the
        output.
        """
        if line.lstrip().startswith(b"{") and _MARK in line:
            if cut:
                self._too_large = True
                return
            try:
                message = orjson.loads(line)
            except orjson.JSONDecodeError:
                message = None
            if isinstance(message, dict) and PIPES_PROTOCOL_VERSION_FIELD in message:
                self._take(cast("dict[str, Any]", message), len(line))
                return
        self.log("info", line.decode("utf-8", "replace"))

    def _take(self, message: dict[str, Any], size: int) -> None:
        """A message of Dagster Pipes, of so many bytes."""
        try:
            with self._lock:
                self._message(str(message.get("method")), message.get("params") or {}, size)
        except ValidationError as error:
            told = "; ".join(
                f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()
            )
            self.log("warning", f"a message of Dagster Pipes cannot be read: {told}")

    def log(self, level: str, text: str) -> None:
        """A line of the step's log, unless it has had enough of them."""
        if len(text) > _LINE_CHARACTERS:
            text = f"{text[:_LINE_CHARACTERS]}… (the rest is left out)"
        if self._fits(self._lines, len(text)):
            self._context.log(level, text)

    def _fits(self, budget: _Budget, size: int) -> bool:
        with self._lock:
            budget.number -= 1
            budget.size -= size
            if budget.number >= 0 and budget.size >= 0:
                return True
            first, budget.spent = not budget.spent, True
        if first:
            self._context.log("warning", f"the step tells much: no more {budget.what} are kept")
        return False

    def _message(self, method: str, params: Any, size: int) -> None:
        match method:
            case "log":
                log = _Log.model_validate(params)
                self.log(log.level.lower(), log.message)
            case "log_external_stream":
                for line in _Stdio.model_validate(params).text.splitlines():
                    self.log("info", line)
            case "report_asset_materialization":
                told = _Materialization.model_validate(params)
                if self._fits(self._assets, size):
                    self._materialized(told)
            case "report_asset_check":
                check = _Check.model_validate(params)
                how = "passed" if check.passed else "failed"
                level = "info" if check.passed else "warning"
                self.log(level, f"check {check.check_name} of {check.asset_key} {how}")
            case "report_custom_message":
                self._custom(_Custom.model_validate(params).payload)
            case "opened":
                self._tell(method, params)
            case "closed":
                closed = _Closed.model_validate(params)
                if closed.exception is not None:
                    told = f"{closed.exception.name}: {closed.exception.message}".strip()
                    self.error = told[:_ERROR_CHARACTERS]
                self.closed = True
                self._tell(method, {})
            case _:
                self.log("warning", f"there is no message {method[:64]!r} of Dagster Pipes")

    def _tell(self, method: str, params: Any) -> None:
        if self._handler is not None:
            self._handler.handle_message(_message(method, params))

    def _materialized(self, told: _Materialization) -> None:
        key = AssetKey.from_escaped_user_string(told.asset_key).path
        values = {name: each.raw_value for name, each in (told.metadata or {}).items()}
        self._context.materialize(key, values)

    def _custom(self, payload: JsonValue) -> None:
        match payload:
            case {"output": output}:
                self.output, self.has_output = output, True
            case {"progress": progress}:
                self.log("info", f"progress: {_told(progress)}")
            case _:
                self.log("debug", "a message with neither `output` nor `progress`")


def _told(progress: JsonValue) -> str:
    if isinstance(progress, float) and 0 <= progress <= 1:
        return f"{progress:.0%}"
    try:
        return progress if isinstance(progress, str) else orjson.dumps(progress).decode()
    except orjson.JSONEncodeError:  # nested deeper than it writes
        return "…"


def _message(method: Any, params: Any) -> Any:
    return {PIPES_PROTOCOL_VERSION_FIELD: "0.1", "method": method, "params": params}
