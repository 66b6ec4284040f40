"""From documents to Dagster jobs, whatever their shape."""

import networkx as nx
from dagster import JobDefinition
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from dynamic_jobs.code_pointer import pointer_to
from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.executing.walk import GraphWalk
from dynamic_jobs.naming import job_name
from foundation.ids import NodeId
from graph_defs.versions import GraphVersion
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value


@st.composite
def dags(draw: st.DrawFn, most: int = 12) -> dict[str, list[str]]:
    """A random DAG: each node's needs."""
    size = draw(st.integers(1, most))
    names = draw(st.permutations([f"n{i}" for i in range(size)]))
    return {
        name: draw(st.lists(st.sampled_from(names[:i]), unique=True)) if i else []
        for i, name in enumerate(names)
    }


def of(needs: dict[str, list[str]]) -> dict[str, object]:
    return graph({name: value(name, *before) for name, before in needs.items()})


@hypothesis(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(needs=dags())
def test_random_dags_run_in_topological_order(bench: Bench, needs: dict[str, list[str]]) -> None:
    run_id = bench.start(bench.publish(of(needs)))
    with bench.worker():
        assert bench.wait_for(run_id)["status"] == "succeeded"
    events = bench.events(run_id)
    for name, before in needs.items():
        for need in before:
            assert events.index(("STEP_SUCCESS", need)) < events.index(("STEP_START", name))


@given(needs=dags(most=40), failing=st.data())
def test_a_failure_skips_exactly_what_is_downstream(
    needs: dict[str, list[str]], failing: st.DataObject
) -> None:
    shape = nx.DiGraph([(need, name) for name, before in needs.items() for need in before])
    shape.add_nodes_from(needs)
    broken = failing.draw(st.sampled_from(sorted(needs)))
    walk = GraphWalk(_Shape(needs), [NodeId(name) for name in needs])  # type: ignore[arg-type]
    skipped: set[str] = set()
    ran: set[str] = set()
    while walk.has_ready:
        for node in walk.take(3):
            ran.add(node)
            if node == broken:
                skipped.update(walk.fail(node))
            else:
                walk.succeed(node)
    assert skipped == nx.descendants(shape, broken)
    assert ran == set(needs) - skipped


def test_a_thousand_nodes_in_a_chain_compile(bench: Bench) -> None:
    chain = {f"n{i}": value(i, *([f"n{i - 1}"] if i else [])) for i in range(1_000)}
    compiled = Compiler(bench.runtime).compile(bench.publish(graph(chain)))
    assert len(compiled.plan.step_keys_to_execute) == 1_000


def test_one_op_definition_serves_all_nodes_of_a_type(bench: Bench) -> None:
    nodes = {name: value(name) for name in ("input", "type", "lambda", "context")}
    job = Compiler(bench.runtime).compile(bench.publish(graph(nodes))).job
    assert [definition.name for definition in job.graph.node_defs] == ["data_transform__v1"]
    assert {node.name for node in job.graph.nodes} == set(nodes), "Dagster's words are no obstacle"


def test_any_process_can_load_the_job_of_a_run(bench: Bench) -> None:
    version = bench.publish(graph({"one": value(1)}))
    name = job_name(version.name, version.graph_id)
    job = pointer_to(TENANT, version.graph_version_id, name).get_definition()
    assert isinstance(job, JobDefinition)
    assert job.tags["graphwright/version"] == "1"


class _Shape:
    """The part of a prepared graph that a walk looks at."""

    def __init__(self, needs: dict[str, list[str]]) -> None:
        self.nodes = {name: _Needs(before) for name, before in needs.items()}
        self.dependents = {
            name: tuple(after for after, before in needs.items() if name in before)
            for name in needs
        }


class _Needs:
    def __init__(self, needs: list[str]) -> None:
        self.needs = needs


def test_versions_are_kept_apart(bench: Bench) -> None:
    compiler = Compiler(bench.runtime)
    first = bench.publish(graph({"one": value(1)}))
    second = bench.publish(graph({"one": value(2)}))
    assert compiler.compile(first) is compiler.compile(first)
    assert compiler.compile(first) is not compiler.compile(second)
    assert isinstance(second, GraphVersion)
    assert second.version == 2


def test_large_graphs_leave_the_cache_before_it_is_full(bench: Bench) -> None:
    bench.runtime.settings = bench.settings.model_copy(update={"compiled_jobs": 3})
    compiler = Compiler(bench.runtime)
    small = [bench.publish(graph({"one": value(i)}, name=f"small-{i}")) for i in range(4)]
    for version in small:
        compiler.compile(version)
    assert [compiler.cached(each.graph_version_id) is not None for each in small] == [
        False,
        True,
        True,
        True,
    ]
    large = bench.publish(graph({f"n{i}": value(i) for i in range(301)}, name="large"))
    compiler.compile(large)
    assert compiler.cached(large.graph_version_id) is not None, "the last one stays in any case"
    assert compiler.cached(small[-1].graph_version_id) is None
