"""The params of a run that another run's end starts: an expression over that run."""

from dataclasses import dataclass
from typing import Final

from psycopg.rows import DictRow

from foundation.errors import GraphwrightError
from graph_defs.expressions import Evaluator, ExpressionError, NotQuick, Scope
from graph_defs.json_values import JsonObject, kind_of
from sensors.notices import EndedRun, Entry, Notice

MOST_DEPTH: Final = 32
"""Runs that may have started each other one by one."""


class Rejected(GraphwrightError):
    """The notice starts no run; the message is its reason."""

    code = "notice_rejected"
    status = 422


@dataclass(frozen=True, slots=True)
class GraphNotice:
    """A notice that is to start a graph, with what its expressions may ask for."""

    notice: Notice
    run: EndedRun
    trigger: JsonObject
    """What started the run."""
    params: JsonObject | None
    """None where they are to be read where nobody waits."""
    outputs: JsonObject | None
    large: bool
    """The outputs are left out for their size."""

    @classmethod
    def of(cls, notice: Notice, row: DictRow) -> "GraphNotice":
        """Raises :class:`Rejected` where there is no run any more."""
        if notice.run is None:
            raise Rejected("the run that has ended was removed")
        return cls(notice, notice.run, row["trigger"], row["params"], row["outputs"], row["large"])

    @property
    def depth(self) -> int:
        """Of the run that it starts: how many before it have started each other so."""
        before = self.trigger.get("depth") if self.trigger.get("type") == "run" else None
        return 1 + (before if isinstance(before, int) else 0)

    @property
    def cause(self) -> JsonObject:
        """The trigger of the run that it starts."""
        return {
            "type": "run",
            "name": self.notice.entry,
            "run_id": self.notice.run_id,
            "graph": self.run.graph,
            "status": self.run.status,
            "depth": self.depth,
        }


def params_of(
    asked: GraphNotice, entry: Entry, evaluator: Evaluator, *, quickly: bool
) -> JsonObject:
    """The params that the entry has in mind.

    Raises :class:`Rejected`; and ``NotQuick``, where they are asked for ``quickly``, if that takes
    more than a fraction of a millisecond, or the run's data are large.
    """
    if asked.params is None:
        raise NotQuick
    if asked.depth > MOST_DEPTH:
        raise Rejected(
            f"more than {MOST_DEPTH} runs in a chain have started each other: do these graphs "
            "start each other for ever?"
        )
    seen: JsonObject = {
        "type": "run",
        "name": asked.notice.entry,
        "run_id": asked.notice.run_id,
        "graph": asked.run.graph,
        "version": asked.run.version,
        "status": asked.run.status,
        "params": asked.params,
        "error": asked.run.error,
    }
    if not asked.large:
        seen["outputs"] = asked.outputs
    scope = Scope(params={}, nodes={}, run={}, trigger=seen)
    evaluate = evaluator.evaluate_quickly if quickly else evaluator.evaluate_in_time
    try:
        params = evaluate(entry.params, scope)
    except ExpressionError as error:
        reason = f"{error.message}. {error.hint}".strip()
        if asked.large:
            reason += " The run's outputs are too large to be seen here."
        raise Rejected(reason) from None
    if not isinstance(params, dict):
        raise Rejected(f"the entry's params give {kind_of(params)}, and no object")
    return params
