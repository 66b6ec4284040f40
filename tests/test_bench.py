"""The benchmarks' own logic. What they measure is measured by `make bench`."""

from datetime import date
from typing import Any

import pytest

import node_types
from bench.__main__ import arguments
from bench.engines.peers import NODE_PEERS, PEERS, PYTHON_PEERS
from bench.support import graphs, report
from bench.support.figures import Figure, figure, milliseconds, quantile, shown
from bench.support.http import Http
from bench.support.machine import Machine
from bench.support.question import ORDER, Aim, Answer, Question, load, modules
from bench.support.report import Report, Result, merged, result_of
from bench.support.table import PAGE, page
from bench.support.timers import timed
from bench.support.webhooks import Webhooks
from foundation.settings import Limits
from graph_defs.admission import admit
from graph_defs.catalogue import Catalogue
from graph_defs.fingerprint import canonical
from graph_defs.triggers import WebhookTrigger
from sensors.signatures import Call, verify

MACHINE = Machine(
    cpu="a processor",
    cores=2,
    memory_gib=24,
    system="Linux x86_64",
    python="3.11.7",
    disk="ext4",
    postgres="PostgreSQL 18 with fsync on",
)


def question(*aims: Aim) -> Question:
    return Question("How long", aims or (Aim("p50", 12, "ms"),), lambda _: Answer({}))


def one(value: float, unit: str = "ms") -> Figure:
    return figure([value], unit)


def result(name: str, value: float = 10) -> Result:
    return result_of(name, question(), Answer({"p50": one(value)}))


def made(*results: Result, commit: str = "abc") -> Report:
    day = date(2026, 1, 2)
    return Report(machine=MACHINE, commit=commit, measured_on=day, results=list(results))


@pytest.mark.parametrize("name", ORDER)
def test_every_question_has_a_title_an_aim_and_known_peers(name: str) -> None:
    asked = load(name)
    assert asked.title
    assert asked.aims
    assert set(asked.peers) <= set(PEERS)


def test_every_module_is_a_question_of_the_list() -> None:
    assert sorted(modules()) == sorted(ORDER)


def test_questions_are_asked_in_their_order_and_once() -> None:
    assert arguments(["first_run,latency_chain10", "first_run"]).only == [
        "latency_chain10",
        "first_run",
    ]
    assert arguments([]).only == list(ORDER)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], PYTHON_PEERS),
        (["--peers", "all"], PEERS),
        (["--peers", "none"], ()),
        (["--peers", "n8n,celery"], ("n8n", "celery")),
    ],
)
def test_peers_are_chosen(given: list[str], expected: tuple[str, ...]) -> None:
    assert arguments(given).peers == expected
    assert not set(PYTHON_PEERS) & set(NODE_PEERS)


@pytest.mark.parametrize("given", [["latency"], ["--peers", "airflow"]])
def test_unknown_names_are_wrong_usage(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments(given)
    assert ended.value.code == 2
    assert given[-1] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("q", "expected"), [(0.01, 1), (0.5, 50), (0.505, 51), (0.99, 99), (1.0, 100)]
)
def test_quantiles_are_samples(q: float, expected: float) -> None:
    assert quantile(list(range(100, 0, -1)), q) == expected


def test_a_figure_keeps_its_spread() -> None:
    assert milliseconds([0.002, 0.0012345, 0.004]) == Figure(
        value=2, unit="ms", low=1.234, high=4, count=3
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.012345, "0.0123"),
        (1.0, "1"),
        (9.996, "10"),
        (12.34, "12.3"),
        (21_250.4, "21,300"),
        (-0.0441, "-0.0441"),
    ],
)
def test_figures_are_shown_with_three_digits(value: float, text: str) -> None:
    assert shown(value) == text


def test_ratios_are_peer_to_ours_by_the_first_aim() -> None:
    aims = (Aim("rate", 100, "/s", at_least=True), Aim("p99", 5, "ms"))
    ours = {"rate": one(120), "p99": one(7)}
    answer = Answer(ours, {"slow": {"rate": one(30)}, "gone": "not installed: no npm"})
    row = result_of("q", question(*aims), answer)
    assert row.ratios == {"slow": 0.25}
    assert [aim.met for aim in row.aim] == [True, False]
    assert not row.met


def test_a_failed_question_has_a_row_that_says_why() -> None:
    row = result_of("latency_chain10", question(), "RuntimeError: a | b")
    assert (row.failed, row.ours, row.met) == ("RuntimeError: a | b", {}, False)
    assert "failed: RuntimeError: a \\| b" in page(made(row))


def test_a_partial_run_joins_results_of_the_same_commit() -> None:
    old = made(result("first_run", 1), result("latency_chain10", 2))
    whole, said = merged(made(result("first_run", 3), result("latency_node1", 4)), old)
    values = [(each.question, each.ours["p50"].value) for each in whole.results]
    assert values == [("latency_chain10", 2), ("latency_node1", 4), ("first_run", 3)]
    assert said == "kept 1 earlier results of this commit on this machine"


def test_results_of_another_commit_are_dropped_and_that_is_said() -> None:
    new = made(result("first_run"), commit="def")
    whole, said = merged(new, made(result("latency_node1")))
    assert whole == new
    assert said == "dropped 1 earlier results: of another commit or machine"
    assert merged(new, made(result("first_run")))[1] == ""


def test_the_page_shows_figures_aims_and_peers() -> None:
    answer = Answer(
        {"p50": milliseconds([0.010, 0.012, 0.017])},
        {"celery": {"p50": one(24)}, "n8n": "not installed: npm is missing"},
    )
    text = page(made(result_of("latency_chain10", question(), answer)))
    assert (
        "| How long<br>`latency_chain10` | p50 12 ms (10 to 17, 3) | p50 ≤ 12 ms | yes "
        "| celery 24 ms × 2<br>n8n: not installed: npm is missing |"
    ) in text


def test_a_report_survives_its_file(tmp_path: Any) -> None:
    file = tmp_path / "results" / "latest.json"
    whole = made(result("first_run"))
    report.write(whole, file)
    assert report.read(file) == whole
    assert report.read(tmp_path / "none.json") is None


def test_the_published_page_is_made_of_the_published_results() -> None:
    published = report.read()
    assert published is not None
    assert PAGE.read_text("utf-8") == page(published)


@pytest.mark.parametrize(
    ("document", "nodes"),
    [
        (graphs.chain(graphs.CHAIN_10), 10),
        (graphs.chain(graphs.Work("sleep", 40, 0.01)), 40),
        (graphs.fan_out(20), 22),
        (graphs.layered(250, "layered"), 250),
        (graphs.montage(), 310),
        (timed(), 1),
    ],
    ids=["chain", "sleeps", "fan-out", "layered", "montage", "timers"],
)
def test_the_graphs_are_valid(document: dict[str, Any], nodes: int) -> None:
    admitted = admit(canonical(document), Catalogue.from_packages(node_types), Limits())
    assert len(admitted.graph.nodes) == nodes


def test_webhook_calls_are_signed_and_none_repeats_another() -> None:
    webhooks = Webhooks("http://127.0.0.1:1", ["/hooks/a", "/hooks/b"], b"key", b'"ref": "main"}')
    trigger = WebhookTrigger.model_validate(
        {"type": "webhook", "scheme": "github", "secret": "key"}
    )
    keys: list[str] = []
    paths: list[str] = []
    for _ in range(3):
        head, _, body = webhooks.call(Http(webhooks.base)).partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (each.partition(": ") for each in lines)
        }
        keys += verify(trigger, ["key"], Call(headers, "", body, 0)).keys
        paths.append(first.split()[1])
    assert len(set(keys)) == len(keys) == 6
    assert paths == ["/hooks/a", "/hooks/b", "/hooks/a"]
