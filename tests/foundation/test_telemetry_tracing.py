"""Traces on their way: W3C's header, and spans as a collector gets them."""

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from foundation.ids import RunId, new_id
from foundation.settings import Settings
from foundation.telemetry.tracing import TraceParent, sane, trace_id_of, tracing
from tests.collector import attributes, collecting

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_header_is_read_and_written() -> None:
    given = TraceParent.parse(f"00-{TRACE}-{SPAN}-01")
    assert given == TraceParent(TRACE, SPAN, sampled=True)
    assert str(given) == f"00-{TRACE}-{SPAN}-01"
    assert TraceParent.parse(f"00-{TRACE}-{SPAN}-00") == TraceParent(TRACE, SPAN, sampled=False)
    later = TraceParent.parse(f"cc-{TRACE}-{SPAN}-09-what-comes-later")
    assert later == TraceParent(TRACE, SPAN, sampled=True)
    assert sane(f"cc-{TRACE}-{SPAN}-09-what-comes-later") == str(later)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE.translate(str.maketrans('0123456789', '٠١٢٣٤٥٦٧٨٩'))}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 1_000}",
    ],
)
def test_a_header_without_sense_is_none(header: str) -> None:
    assert TraceParent.parse(header) is None
    assert sane(header) is None


def test_a_run_has_a_trace_of_its_own_unless_it_is_given_one() -> None:
    run_id = RunId(new_id())
    assert trace_id_of(run_id, None) == UUID(run_id).hex
    assert trace_id_of(run_id, f"00-{TRACE}-{SPAN}-01") == TRACE


def test_without_a_collector_nothing_is_traced() -> None:
    with tracing(Settings(), "api") as traced:
        assert traced is None


def test_spans_arrive_as_a_tree() -> None:
    run_id = RunId(new_id())
    with collecting() as collector:
        with tracing(Settings(otlp_endpoint=f"{collector.url}/"), "api") as traced:
            assert traced is not None
            trigger = traced.trigger(run_id, f"00-{TRACE}-{SPAN}-01")
            traced.ended(trigger, {"graphwright.run_id": run_id})
            run = traced.run(run_id, str(trigger.here), time.time() - 2)
            assert run == traced.run(run_id, str(trigger.here), run.began), "on every worker"
            began = datetime.now(UTC) - timedelta(seconds=1)
            traced.node(run, "file.read", began, {"graphwright.attempt": 1}, "no_such_file")
            traced.ended(run, {}, "no_such_file")
        spans = {span.name: span for _, span in collector.spans}  # closing has sent them
    assert {service for service, _ in collector.spans} == {"graphwright-api"}
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert spans["trigger"].parent_span_id.hex() == SPAN
    assert spans["run"].parent_span_id == spans["trigger"].span_id
    assert spans["file.read"].parent_span_id == spans["run"].span_id
    assert attributes(spans["file.read"]) == {"graphwright.attempt": 1}
    assert spans["file.read"].status.message == "no_such_file"
    node, whole = spans["file.read"], spans["run"]
    assert whole.start_time_unix_nano < node.start_time_unix_nano < node.end_time_unix_nano
    assert node.end_time_unix_nano <= whole.end_time_unix_nano


def test_a_caller_that_does_not_sample_is_heeded() -> None:
    run_id = RunId(new_id())
    with collecting() as collector:
        with tracing(Settings(otlp_endpoint=collector.url), "api") as traced:
            assert traced is not None
            trigger = traced.trigger(run_id, f"00-{TRACE}-{SPAN}-00")
            assert str(trigger.here).endswith("-00")
            run = traced.run(run_id, str(trigger.here), time.time())
            traced.node(run, "file.read", datetime.now(UTC), {}, None)
            traced.ended(trigger, {})
            traced.ended(run, {})
        assert collector.spans == []


def test_a_collector_that_is_away_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    with collecting() as gone:
        pass
    with tracing(Settings(otlp_endpoint=gone.url), "api") as traced:
        assert traced is not None
        traced.ended(traced.trigger(RunId(new_id()), None), {})
    assert caplog.records
