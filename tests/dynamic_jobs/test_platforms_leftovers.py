"""What steps have left of runs that are over is removed, and nothing else."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import pytest

from dynamic_jobs.platforms import leftovers
from dynamic_jobs.platforms.leftovers import Leftovers
from foundation.database import async_connect
from foundation.ids import new_id
from tests.dynamic_jobs.conftest import Bench, graph, value
from tests.dynamic_jobs.steps import allow


class Held:
    """Stands for a socket or a namespace."""

    def __init__(self, **found: str) -> None:
        self._found = found
        self.removed: list[str] = []

    def found(self) -> dict[str, str]:
        return self._found

    def remove(self, names: Collection[str], /) -> None:
        self.removed += names


class Broken(Held):
    def found(self) -> dict[str, str]:
        raise OSError("not there")


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Has these looked at; what the workers were asked for is in the list."""

    def use(*found: Held) -> list[Any]:
        asked: list[Any] = []

        def made(docker: bool, namespaces: Collection[str]) -> list[Held]:
            asked.append((docker, namespaces))
            return list(found)

        monkeypatch.setattr(leftovers, "_places", made)
        return asked

    return use


def look(bench: Bench, over_seconds: float) -> None:
    async def once() -> None:
        async with await async_connect(bench.settings.database_url) as connection:
            await Leftovers(bench.settings.database_url, over_seconds).look(connection)

    asyncio.run(once())


def test_only_what_is_left_of_runs_that_are_over_is_removed(
    bench: Bench, places: Callable[..., list[Any]]
) -> None:
    version = bench.publish(graph({"one": value(1)}))
    with bench.worker():
        ended = bench.start(version)
        bench.wait_for(ended)
    queued = bench.start(version)
    held = Held(ended=ended, again=ended, queued=queued, of_another_installation=new_id())
    places(Broken(), held)
    look(bench, 3_600)
    assert held.removed == []  # its worker may be about to
    look(bench, 0)
    assert held.removed == ["ended", "again"]


def test_it_is_looked_for_only_where_tenants_may_have_steps_or_containers(
    bench: Bench, places: Callable[..., list[Any]]
) -> None:
    asked = places()
    look(bench, 0)
    allow(bench, docker={"images": []}, kubernetes={"namespace": "steps"})
    look(bench, 0)
    allow(bench, docker=None)
    look(bench, 0)
    statement = "UPDATE graphwright.tenants SET isolations = '{warm,docker}' WHERE tenant = ''"
    bench.connection.execute(statement)
    look(bench, 0)
    assert asked == [(False, []), (True, ["steps"]), (False, []), (True, [])]
