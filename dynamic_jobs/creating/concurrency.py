"""The slot that a run takes by its graph's ``concurrency``, and who has to leave it."""

import hashlib
from dataclasses import dataclass
from typing import Final, LiteralString, Self

import orjson

from dynamic_jobs.creating.new_run import Slot
from foundation.database import AsyncConnection
from foundation.errors import Fault, Invalid
from foundation.ids import GraphId, RunId, TenantId
from graph_defs.document import Concurrency
from graph_defs.expressions import Evaluator, ExpressionError, Scope, Template
from graph_defs.json_values import JsonObject
from graph_defs.versions import GraphVersion

_LONGEST_KEY: Final = 200

# The newest of those that hold a place or wait for one may stay.
TOO_MANY: Final[LiteralString] = """
SELECT live.run_id::text FROM (
    SELECT run_id FROM graphwright.run_slots WHERE tenant = %(tenant)s AND slot = %(slot)s
    UNION
    SELECT run_id FROM graphwright.run_queue
    WHERE state = 'blocked' AND tenant = %(tenant)s AND slot = %(slot)s
) live
JOIN graphwright.runs r ON r.tenant = %(tenant)s AND r.run_id = live.run_id
WHERE r.ended_at IS NULL
ORDER BY r.sort_id DESC OFFSET %(limit)s
"""


@dataclass(frozen=True, slots=True)
class GraphConcurrency:
    """A version's ``concurrency``, its key compiled."""

    graph_id: GraphId
    rule: Concurrency
    key: Template | None

    @classmethod
    def of(cls, version: GraphVersion, evaluator: Evaluator) -> Self | None:
        """None where the version has no such rule."""
        given = version.document.get("concurrency")
        if given is None:
            return None
        rule = Concurrency.model_validate(given)
        key = None if rule.key is None else evaluator.compile(rule.key)
        return cls(GraphId(version.graph_id), rule, key)

    def slot(
        self,
        evaluator: Evaluator,
        params: JsonObject,
        trigger: JsonObject,
        *,
        quickly: bool = False,
    ) -> Slot:
        """The slot of a run with these params.

        Raises :class:`Invalid` where they give no key; and ``NotQuick``, where it is asked for
        ``quickly``, if working it out takes more than a fraction of a millisecond.
        """
        name = str(self.graph_id)
        if self.key is not None:
            scope = Scope(params=params, nodes={}, run={}, trigger=trigger)
            try:
                evaluate = evaluator.evaluate_quickly if quickly else evaluator.evaluate
                key = evaluate(self.key, scope)
            except ExpressionError as error:
                fault = Fault("/params", "no_concurrency_key", error.message, error.hint)
                raise Invalid("The graph's concurrency key cannot be evaluated.", [fault]) from None
            name = f"{name}/{_text(key)}"
        return Slot(name, self.rule.limit, rejects=self.rule.on_conflict == "reject")


def _text(key: object) -> str:
    text = orjson.dumps(key)  # so that "1" and 1 are two keys
    return text.decode() if len(text) <= _LONGEST_KEY else hashlib.sha256(text).hexdigest()


async def too_many(connection: AsyncConnection, tenant: TenantId, slot: Slot) -> list[RunId]:
    """The runs that hold the slot, or wait for it, beside the newest that fit into it."""
    values = {"tenant": tenant, "slot": slot.name, "limit": slot.limit}
    rows = await (await connection.execute(TOO_MANY, values)).fetchall()
    return [RunId(row["run_id"]) for row in rows]
