"""docs/scale.md: what the code writes there, between marks; a test compares it.

A table stands between ``<!-- name -->`` and ``<!-- /name -->``, a number within a sentence between
``<!--=name-->`` and ``<!--/-->``.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from bench.scale import table
from bench.scale.costs import Costs
from bench.scale.figures import figures
from bench.scale.measured import measured
from bench.support.machine import ROOT

PAGE: Final = ROOT / "docs" / "scale.md"
TABLES: Final[Mapping[str, Callable[[Costs], str]]] = {
    "measured": measured,
    "sizes": table.sizes,
    "bottlenecks": table.bottlenecks,
    "room": table.room,
    "remedies": table.remedies,
    "scenes": table.scenes,
}
NUMBER: Final = re.compile(r"(<!--=(\w+)-->).*?(<!--/-->)")


def filled(page: str, name: str, text: str) -> str:
    """The page with this table. Raises ValueError where it has no place for it."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{PAGE} has no marks of {name}")
    return f"{before}{begin}{text}\n{end}{after}"


def told(page: str, costs: Costs) -> str:
    """The page with all numbers of its sentences. Raises KeyError for one that nobody computes."""
    found = figures(costs)
    return NUMBER.sub(lambda mark: f"{mark[1]}{found[mark[2]]}{mark[3]}", page)
