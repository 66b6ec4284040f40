"""The workspace window: which graphs Dagster's code server has as jobs, and what that costs."""

import pytest
from dagster import DagsterInvariantViolationError

from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.naming import job_name
from dynamic_jobs.window import WindowRepository, window_versions
from foundation.database import Connection, connect
from graph_defs.versions import GraphVersion
from tests.dynamic_jobs.conftest import Bench, graph, value


def job_of(version: GraphVersion) -> str:
    return job_name(version.name, version.graph_id)


def test_the_graphs_that_changed_last_are_jobs(bench: Bench) -> None:
    versions = [bench.publish(graph({"a": value(1)}, name=f"g{number}")) for number in range(3)]
    bench.publish(graph({"a": value(2)}, name="g0"))
    window = WindowRepository(
        lambda: connect(bench.settings.database_url), Compiler(bench.runtime), size=2
    )
    assert set(window.get_job_names()) == {job_of(versions[0]), job_of(versions[2])}
    assert not window.has_job(job_of(versions[1]))
    with pytest.raises(DagsterInvariantViolationError, match="g1__"):
        window.get_job(job_of(versions[1]))


def test_a_graph_without_a_published_version_is_none(bench: Bench) -> None:
    version = bench.publish(graph({"a": value(1)}))
    bench.connection.execute("UPDATE graphwright.graphs SET version = 0")
    assert window_versions(bench.connection, 10) == frozenset()
    bench.connection.execute("UPDATE graphwright.graphs SET version = 1")
    assert window_versions(bench.connection, 10) == {version.graph_version_id}


def test_listed_jobs_are_given_without_a_look_at_the_database(bench: Bench) -> None:
    """The UI asks for each of some hundred jobs by itself."""
    looks = 0

    def look() -> Connection:
        nonlocal looks
        looks += 1
        return connect(bench.settings.database_url)

    window = WindowRepository(look, Compiler(bench.runtime), size=10)
    names = [job_of(bench.publish(graph({"a": value(1)}, name=f"g{n}"))) for n in range(3)]
    listed = {job.name: job for job in window.get_all_jobs()}
    assert [window.get_job(name) for name in names] == [listed[name] for name in names]
    assert all(window.has_job(name) for name in names)
    assert looks == 1
    new = bench.publish(graph({"a": value(1)}, name="new"))
    assert window.get_job(job_of(new)).name == job_of(new)
    assert looks == 2
