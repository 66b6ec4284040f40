"""Two of everything: as many runs as there are keys."""

import asyncio
import random

import httpx
import pytest

from foundation.database import connect
from tests.faults.installation import installation
from tests.faults.test_killed_workers import publish
from tests.faults.test_servers_away import GRAPH


async def _trigger(
    urls: list[str], headers: dict[str, str], keys: list[str]
) -> dict[str, set[str]]:
    """Send a trigger for each key, to one API or the other; the run ids that each key got."""
    got: dict[str, set[str]] = {key: set() for key in keys}
    asked = iter([(key, urls[number % len(urls)]) for number, key in enumerate(keys)])
    async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=60) as client:

        async def send() -> None:
            for key, url in asked:
                answer = await client.post(
                    f"{url}/api/v1/graphs/small/runs",
                    json={},
                    headers={"Idempotency-Key": key},
                )
                assert answer.status_code == 202, answer.text
                got[key].add(answer.json()["run_id"])

        await asyncio.gather(*(send() for _ in range(32)))
    return got


def duplicates(triggers: int) -> str:
    with installation(worker_processes=1) as made:
        urls = [made.api(), made.api()]
        publish(urls[0], made.headers(), GRAPH)
        for _ in range(2):
            made.start("worker")
        dice = random.Random(4)
        unique = [f"key-{number}" for number in range(triggers - triggers // 10)]
        keys = unique + dice.sample(unique, triggers // 10)
        dice.shuffle(keys)
        got = asyncio.run(_trigger(urls, made.headers(), keys))
        made.until_ended(len(unique), 120)
        assert {len(runs) for runs in got.values()} == {1}, "a key got two runs"
        assert made.outcomes() == {("succeeded", None): len(unique)}
        with connect(made.settings.database_url) as connection:
            row = connection.execute(
                "SELECT count(*) AS n, count(DISTINCT run_id) AS runs FROM event_logs "
                "WHERE dagster_event_type = 'PIPELINE_SUCCESS'"
            ).fetchone()
        assert row == {"n": len(unique), "runs": len(unique)}
        return (
            f"{len(keys)} triggers with {len(unique)} keys over two APIs and two workers: "
            f"{len(unique)} runs, each succeeded once"
        )


def test_some_triggers_are_sent_twice() -> None:
    duplicates(200)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_two_thousand_triggers_a_tenth_of_them_twice() -> None:
    print(duplicates(2_000))
