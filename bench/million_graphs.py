"""Whether a trigger takes longer when a million graphs are stored: against a thousand, in turn.

Both databases belong to one tenant, whose rows lie in one partition: the worst case. Graphs are
triggered that lie evenly among the others, each once before it counts.
"""

import json
import time
from typing import Final, LiteralString

from bench.engines.graphwright import Graphwright
from bench.engines.web import run
from bench.support.figures import figure, milliseconds, quantile
from bench.support.graphs import document, transform
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site, say
from foundation.database import connect

_FEW: Final = 1_000
_MANY: Final = 1_000_000
_TRIGGERED: Final = 100
_ROUNDS: Final = 10

GRAPHS: Final[LiteralString] = """
INSERT INTO graphwright.graphs (tenant, graph_id, name, version)
SELECT 'default', uuidv7(), 'graph-' || number, 1 FROM generate_series(0, %(count)s - 1) number
"""
VERSIONS: Final[LiteralString] = """
INSERT INTO graphwright.graph_versions
       (tenant, graph_version_id, graph_id, version, fingerprint, document, node_types, author)
SELECT tenant, uuidv7(), graph_id, 1, sha256(name::bytea), replace(%(document)s, 'NAME', name),
       %(node_types)s, 'bench'
FROM graphwright.graphs
"""
USED: Final[LiteralString] = """
INSERT INTO graphwright.recent_graphs (graph_id, tenant, used_at)
SELECT graph_id, tenant, now() - random() * interval '1 year' FROM graphwright.graphs
"""
SETTLE: Final[tuple[LiteralString, ...]] = ("VACUUM ANALYZE", "CHECKPOINT")


def measure(site: Site) -> Answer:
    with site.quiet(), site.api() as few, site.api() as many:
        for api, count in ((few, _FEW), (many, _MANY)):
            _fill(api, count)
        few_took, many_took, ratios = run(_in_turn(few, many))
    return Answer(
        {
            "ratio": figure(ratios, "times"),
            "p50 among 1,000": milliseconds(few_took),
            "p50 among 1,000,000": milliseconds(many_took),
        }
    )


def _fill(api: Graphwright, count: int) -> None:
    began = time.monotonic()
    given = {
        "count": count,
        "document": json.dumps(document("NAME", {"one": transform(1)})),
        "node_types": json.dumps({"data.transform": 1}),
    }
    with connect(api.database) as database:
        for statement in (GRAPHS, VERSIONS, USED):
            database.execute(statement, given)
        for statement in SETTLE:
            database.execute(statement)
    say(f"  {count} graphs stored in {time.monotonic() - began:.0f} s")


async def _in_turn(
    few: Graphwright, many: Graphwright
) -> tuple[list[float], list[float], list[float]]:
    """Each side's seconds a trigger, and each round's ratio of medians, many to few."""
    found: tuple[list[float], list[float], list[float]] = ([], [], [])
    await _trigger(few, _FEW)
    await _trigger(many, _MANY)
    for _ in range(_ROUNDS):
        one, other = await _trigger(few, _FEW), await _trigger(many, _MANY)
        found[0].extend(one)
        found[1].extend(other)
        found[2].append(quantile(other, 0.5) / quantile(one, 0.5))
    return found


async def _trigger(api: Graphwright, count: int) -> list[float]:
    took: list[float] = []
    async with api.http() as http:
        for number in range(0, count, count // _TRIGGERED):
            request = http.post(f"/api/v1/graphs/graph-{number}/runs", b"{}")
            began = time.perf_counter()
            await http.send(request)
            took.append(time.perf_counter() - began)
    return took


QUESTION: Final = Question(
    title="Trigger p50 with 1,000,000 stored graphs, against 1,000",
    aims=(Aim("ratio", 1.1, "times"),),
    measure=measure,
)
