"""The launcher that ``dagster.yaml`` names: where runs can be placed, and where they cannot."""

import pytest
from dagster import RunsFilter
from dagster._core.launcher.base import LaunchRunContext
from dagster._serdes import ConfigurableClassData

from dynamic_jobs.launcher import GraphwrightRunLauncher
from dynamic_jobs.placing.base import PlacementFailed
from foundation.errors import Conflict
from graph_defs.placement import Isolation
from tests.dynamic_jobs.conftest import Bench, graph, value


def launcher(config: str = "{}") -> GraphwrightRunLauncher:
    """As Dagster makes it from its section of ``dagster.yaml``."""
    data = ConfigurableClassData("dynamic_jobs.launcher", "GraphwrightRunLauncher", config)
    made = data.rehydrate()
    assert isinstance(made, GraphwrightRunLauncher)
    return made


@pytest.mark.parametrize("isolation", ["docker", "kubernetes"])
def test_where_nothing_is_configured_nothing_is_placed(isolation: Isolation) -> None:
    with pytest.raises(PlacementFailed) as caught:
        launcher().platform(isolation)
    assert not caught.value.passing
    assert f"run_launcher.config.{isolation}" in caught.value.hint


@pytest.mark.parametrize("isolation", ["warm", "process"])
def test_what_stays_with_the_workers_has_no_platform(isolation: Isolation) -> None:
    with pytest.raises(PlacementFailed):
        launcher().platform(isolation)


def test_a_configuration_that_dagsters_launcher_does_not_take_may_be_mended() -> None:
    with pytest.raises(PlacementFailed, match="nonsense") as caught:
        launcher("kubernetes: {nonsense: 1}").platform("kubernetes")
    assert caught.value.passing


def test_a_run_of_a_graph_is_claimed_and_not_launched(bench: Bench) -> None:
    run_id = bench.start(bench.publish(graph({"one": value(1)})))
    (run,) = bench.storage.runs.get_runs(RunsFilter(run_ids=[run_id]))
    with pytest.raises(Conflict):
        launcher().launch_run(LaunchRunContext(run, None))
