"""Lines of logs: what they hold, and what never gets into them."""

import json
import logging
import sys
from contextvars import copy_context
from typing import Any

import jwt
import pytest

from foundation.ids import RunId, TenantId
from foundation.telemetry.context import REQUEST_ID, working_on
from foundation.telemetry.logs import JsonLines, TextLines

SECRET = "s3cr3t-value-that-nobody-logs"
JWT = jwt.encode({"sub": "ann"}, "k" * 32, algorithm="HS256")
API_KEY = f"gw_ab12cd34_{'x' * 20}-{'y' * 22}"


def record(message: str, *arguments: Any, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("some.logger", logging.WARNING, __file__, 1, message, arguments, None)
    made.__dict__ |= more
    return made


def line(made: logging.LogRecord) -> dict[str, Any]:
    text = JsonLines().format(made)
    assert "\n" not in text
    return json.loads(text)


def test_a_line_says_when_where_and_what() -> None:
    said = line(record("%d things are %s", 3, "done"))
    assert said["time"].endswith("Z")
    assert (said["level"], said["logger"]) == ("warning", "some.logger")
    assert said["message"] == "3 things are done"
    assert not {"request_id", "run_id", "tenant", "exception"} & said.keys()


def test_a_line_says_for_whom() -> None:
    def work() -> dict[str, Any]:
        REQUEST_ID.set("r1")
        working_on(TenantId("acme"), RunId("run1"))
        return line(record("done"))

    said = copy_context().run(work)
    assert (said["request_id"], said["tenant"], said["run_id"]) == ("r1", "acme", "run1")
    assert "tenant" not in line(record("done"))


def test_fields_and_exceptions() -> None:
    try:
        raise ValueError(f"bad: Bearer {SECRET}")
    except ValueError:
        said = line(record("it broke", exc_info=sys.exc_info(), fields={"status": 500}))
    assert said["status"] == 500
    assert "ValueError: bad: Bearer …" in said["exception"]


def test_what_is_no_unicode_is_logged_all_the_same() -> None:
    assert line(record("half a pair: \ud800"))["message"] == "half a pair: \ud800"
    assert line(record("large", fields={"size": 2**70}))["size"] == 2**70


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (f"token {JWT} is bad", "token … is bad"),
        (f"header Authorization: Bearer {SECRET}!", "header Authorization: Bearer …"),
        (f"key {API_KEY}, refused", "key …, refused"),
        (f"cannot reach redis://:{SECRET}@host/0", "cannot reach redis://…@host/0"),
        (f"postgresql://ann:{SECRET}@host/db is away", "postgresql://…@host/db is away"),
        (f"GET /api/v1/runs/1/ws?token={SECRET} failed", "GET /api/v1/runs/1/ws?… failed"),
        (f"GET https://host/?a=1&key={SECRET}", "GET https://host/?…"),
    ],
)
def test_credentials_are_struck_out(message: str, told: str) -> None:
    assert line(record("%s", message))["message"] == told
    assert TextLines("%(message)s").format(record("%s", message)) == told


@pytest.mark.parametrize(
    "message", ["is it there? no", "run 0190-77 (acme)", "at 10:30:01 a@b", "graph gw_one has 3"]
)
def test_other_text_stays(message: str) -> None:
    assert line(record("%s", message))["message"] == message
