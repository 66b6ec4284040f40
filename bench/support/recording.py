"""Runs of one big graph, one after the other on a warm stack."""

from collections.abc import Mapping
from typing import Any, Final

from bench.support.figures import Figure, figure
from bench.support.site import Site

_WARM_UP: Final = 4  # every worker process compiles the graph once


def recorded(site: Site, document: Mapping[str, Any], count: int) -> dict[str, Figure]:
    """``run``: seconds from the trigger until the terminal event, committed, is at an SSE client.

    ``by its record`` is from ``started_at`` to ``ended_at``, the times at which the first and last
    event were made: it leaves out the queue before and the commit behind, so no aim is held to it.
    """
    with site.only(site.ours):
        site.ours.recorded(document, _WARM_UP)
        seen, noted = site.ours.recorded(document, count)
    return {"run": figure(seen, "s"), "by its record": figure(noted, "s")}
