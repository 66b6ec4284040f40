"""What Dagster makes of a graph with our functions is what it makes of it with its own."""

import importlib.util
import random
import zlib
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import toposort as stock_toposort
from dagster._core import utils as dagster_utils
from dagster._core.definitions import graph_definition
from dagster._core.snap import create_execution_plan_snapshot_id, snapshot_from_execution_plan
from dagster._serdes import serialize_value
from hypothesis import given
from hypothesis import strategies as st

import node_types
from dynamic_jobs.compiling import order as compile_order
from dynamic_jobs.compiling.compiler import CompiledGraph, Compiler
from dynamic_jobs.executing.runtime import NodeRuntime
from foundation.ids import GraphId, GraphVersionId
from foundation.settings import Limits, Settings
from graph_defs.catalogue import Catalogue
from graph_defs.parsing import parse
from graph_defs.versions import GraphVersion
from tests.dynamic_jobs.conftest import TENANT, graph, value

EXAMPLES = Path(__file__).parents[2] / "examples"


def chain(size: int) -> dict[str, Any]:
    return graph({f"n{i}": value(i, *([f"n{i - 1}"] if i else [])) for i in range(size)})


def fan(width: int) -> dict[str, Any]:
    workers = {f"w{i}": value(i, "first") for i in range(width)}
    return graph({"first": value(0), **workers, "last": value(1, *workers)})


def layers(depth: int, width: int) -> dict[str, Any]:
    chosen = random.Random(depth)
    nodes = {
        f"n{layer}_{i}": value(
            i, *chosen.sample([f"n{layer - 1}_{j}" for j in range(width)], 3 if layer else 0)
        )
        for layer in range(depth)
        for i in range(width)
    }
    return graph(nodes, params={"properties": {"ü": {"default": ['"', None, 0.5, {}]}}})


def mixed() -> dict[str, Any]:
    """Nodes of several types, and one with retries."""
    return graph(
        {
            "wait": {"type": "work.sleep", "with": {"seconds": 0}},
            "read": {"type": "file.read", "needs": ["wait"], "with": {"path": "/a"}},
            "call": {
                "type": "http.request",
                "needs": ["wait", "read"],
                "with": {"url": "http://127.0.0.1"},
                "retry": {"limit": 2},
            },
        }
    )


@pytest.fixture(scope="module")
def runtime() -> Generator[NodeRuntime]:
    with NodeRuntime(Settings(), Limits(), Catalogue.from_packages(node_types)) as made:
        yield made


def compiled(document: dict[str, Any], runtime: NodeRuntime) -> CompiledGraph:
    version = GraphVersion(
        graph_version_id=GraphVersionId("01900000-0000-7000-8000-000000000001"),
        graph_id=GraphId("01900000-0000-7000-8000-0123456789ab"),
        tenant=TENANT,
        name=document["metadata"]["name"],
        version=1,
        fingerprint="",
        document=document,
        node_types=runtime.catalogue.versions(),
        author="tester",
        created_at=datetime.now(UTC),
    )
    return Compiler(runtime).compile(version)


def stock_adjacency_lists() -> Any:
    """Dagster's own function, from its module loaded a second time."""
    path = graph_definition.__file__
    spec = importlib.util.spec_from_file_location(graph_definition.__name__, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.create_adjacency_lists


@pytest.fixture
def stock(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Dagster as it is installed, until ``undo``."""
    monkeypatch.setattr(compile_order, "install", lambda: None)
    monkeypatch.setattr(dagster_utils, "toposort_", stock_toposort)
    monkeypatch.setattr(graph_definition, "create_adjacency_lists", stock_adjacency_lists())
    return monkeypatch


@pytest.mark.parametrize(
    "document",
    [
        chain(1),
        chain(300),
        fan(200),
        layers(8, 12),
        mixed(),
        parse((EXAMPLES / "wfcommons" / "montage.yaml").read_bytes(), Limits()),
    ],
    ids=["one node", "chain", "fan-out", "layers", "mixed", "montage"],
)
def test_jobs_plans_and_snapshots_are_those_of_stock_dagster(
    document: dict[str, Any], runtime: NodeRuntime, stock: pytest.MonkeyPatch
) -> None:
    theirs = compiled(document, runtime)
    job_snapshot = theirs.job.get_job_snapshot()
    plan_snapshot = snapshot_from_execution_plan(theirs.plan, job_snapshot.snapshot_id)
    levels = [[step.key for step in level] for level in theirs.plan.get_all_steps_by_level()]
    order = [node.name for node in theirs.job.nodes_in_topological_order]
    stock.undo()

    ours = compiled(document, runtime)
    assert ours.job_snapshot_id == job_snapshot.snapshot_id
    assert ours.plan_snapshot_id == create_execution_plan_snapshot_id(plan_snapshot)
    assert ours.plan_snapshot == plan_snapshot
    assert zlib.decompress(ours.stored_job_snapshot.body).decode() == serialize_value(job_snapshot)
    assert zlib.decompress(ours.stored_plan_snapshot.body).decode() == serialize_value(
        plan_snapshot
    )
    assert ours.plan.step_keys_to_execute == theirs.plan.step_keys_to_execute
    assert [node.name for node in ours.job.nodes_in_topological_order] == order
    assert levels == [[step.key for step in each] for each in ours.plan.get_all_steps_by_level()]


def test_a_chain_may_be_longer_than_python_recurses(runtime: NodeRuntime) -> None:
    assert len(compiled(chain(5_000), runtime).plan.get_all_steps_by_level()) == 5_000


def test_dagster_looks_our_functions_up(
    runtime: NodeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def spy(name: str) -> Any:
        function = getattr(compile_order, name)

        def spying(*arguments: Any) -> Any:
            called.append(name)
            return function(*arguments)

        return spying

    for name in ("toposort", "create_adjacency_lists"):
        monkeypatch.setattr(compile_order, name, spy(name))
    compiled(fan(2), runtime)
    # The job sorts its nodes, and the plan its steps.
    assert called == ["create_adjacency_lists", "toposort", "toposort"]
    monkeypatch.undo()
    compile_order.install()


NAMES = st.integers(0, 9)


@given(st.dictionaries(NAMES, st.frozensets(NAMES)))
def test_levels_are_those_of_toposort(needs: dict[int, frozenset[int]]) -> None:
    def sorted_by(function: Any) -> tuple[list[set[int]], Any]:
        levels: list[set[int]] = []
        try:
            levels.extend(set(level) for level in function(needs))
        except stock_toposort.CircularDependencyError as error:
            return levels, error.data
        return levels, None

    assert sorted_by(compile_order.toposort) == sorted_by(stock_toposort.toposort)
