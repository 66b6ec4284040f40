"""What steps tell, whatever their programs write, and how they are ended."""

import threading
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_jobs.platforms.base import Ending
from dynamic_jobs.platforms.lines import MAX_MESSAGE_BYTES, Lines
from dynamic_jobs.platforms.reports import Reports
from graph_defs.step_policy import ImageSteps, StepPolicy
from node_types.base import OutputTooLarge
from tests.dynamic_jobs.steps import Told


def reports(told: Told) -> Reports:
    step = told.step()
    return Reports(step.context, step.limits)


def message(method: str, params: Any) -> bytes:
    return orjson.dumps({"__dagster_pipes_version": "0.1", "method": method, "params": params})


@given(st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b""))), st.data())
def test_lines_are_the_same_in_whatever_pieces_they_come(lines: list[bytes], data: Any) -> None:
    taken: list[bytes] = []
    whole, put = b"".join(line + b"\n" for line in lines), Lines(lambda line, _: taken.append(line))
    while whole:
        size = data.draw(st.integers(1, len(whole)))
        put.feed(whole[:size])
        whole = whole[size:]
    put.end()
    assert taken == [line.rstrip(b"\r") for line in lines if line]


@pytest.mark.parametrize(
    ("begin", "most"),
    [(b"x", 64 * 2**10), (b"{", MAX_MESSAGE_BYTES), (b"2026-11-21T19:00:00Z {", MAX_MESSAGE_BYTES)],
)
def test_a_line_without_end_takes_no_more_memory_than_one_may(begin: bytes, most: int) -> None:
    taken: list[tuple[int, bool]] = []
    lines = Lines(lambda line, cut: taken.append((len(line), cut)))
    lines.feed(begin)
    for _ in range(50):
        lines.feed(b"x" * 100_000)
    lines.feed(b"\nshort\n")
    assert taken == [(most, True), (5, False)]


def test_an_output_that_is_too_large_fails_the_step() -> None:
    told = Told(StepPolicy())
    made = reports(told)
    lines = Lines(made.line)
    lines.feed(message("report_custom_message", {"payload": {"output": "x" * MAX_MESSAGE_BYTES}}))
    lines.feed(b"\n" + message("report_custom_message", {"payload": {"output": 1}}) + b"\n")
    with pytest.raises(OutputTooLarge, match="4,194,304 bytes"):
        made.result()
    assert told.logs == []


def test_one_step_logs_and_materializes_no_more_than_it_may() -> None:
    told = Told(StepPolicy(), log_lines=5_000)
    made = reports(told)
    for number in range(1_100):
        made.line(message("report_asset_materialization", {"asset_key": f"of/{number}"}))
        made.line(b"x" * 20_000)
    assert len(told.assets) == 1_000
    assert sum(map(len, told.lines)) < 17 * 2**20
    warnings = [text for level, text in told.logs if level == "warning"]
    assert len(warnings) == 2
    large = Told(StepPolicy())
    made = reports(large)
    metadata = {"m": {"raw_value": "y" * 2**20}}
    for _ in range(20):
        made.line(message("report_asset_materialization", {"asset_key": "a", "metadata": metadata}))
    assert len(large.assets) == 15


@pytest.mark.parametrize(
    "line",
    [
        message("log", {"message": 1}),
        message("report_asset_materialization", {"asset_key": ""}),
        message("report_custom_message", None),
        message("no_such_method", {}),
        message("closed", {"exception": "none"}),
        message("log", [1]),
        b'{"__dagster_pipes_version": "0.1"}',
    ],
)
def test_a_message_that_cannot_be_read_is_a_warning(line: bytes) -> None:
    told = Told(StepPolicy())
    reports(told).line(line)
    assert [level for level, _ in told.logs] == ["warning"]


def test_progress_may_be_nested_deeper_than_json_is_written() -> None:
    told = Told(StepPolicy())
    deep = b"[" * 300 + b"]" * 300
    line = message("report_custom_message", {"payload": {"progress": 1}}).replace(b"1}}}", deep)
    reports(told).line(line + b"}}}")
    assert told.lines == ["progress: …"]


@pytest.mark.parametrize("line", [b"plain", b"{", b'{"__dagster_pipes_version', b"\xff", b"[1]"])
def test_what_is_no_message_is_a_line(line: bytes) -> None:
    told = Told(StepPolicy())
    reports(told).line(line)
    assert told.logs == [("info", line.decode("utf-8", "replace"))]


def test_the_last_output_is_the_one_that_counts_even_if_it_is_null() -> None:
    made = reports(Told(StepPolicy()))
    assert not made.has_output
    for output in (1, {"a": [2]}, None):
        made.line(message("report_custom_message", {"payload": {"output": output}}))
    assert (made.has_output, made.output) == (True, None)


def test_a_step_that_is_to_end_is_told_once_before_or_while_it_runs() -> None:
    told: list[str] = []
    ending, called = Ending(), threading.Event()

    def stop() -> None:
        told.append("stop")
        called.set()

    with ending.stopping(stop):
        ending.set()
        ending.set()
        called.wait()
    with ending.stopping(lambda: told.append("at once")):
        pass
    assert told == ["stop", "at once"]


def test_images_are_allowed_by_patterns() -> None:
    policy = ImageSteps(images=["python:3.12", "registry.example.org/team/*"])
    assert policy.allows("python:3.12")
    assert policy.allows("registry.example.org/team/etl:1")
    assert not policy.allows("python:3.12-slim")
    assert not policy.allows("registry.example.org/team")
    assert not policy.allows("evil.example.org/registry.example.org/team/etl")
    assert not ImageSteps().allows("python")
