"""What a delivery asks for: its trigger's filter and params, evaluated over it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import parse_qs

import orjson
from psycopg.rows import DictRow

from foundation.errors import GraphwrightError
from foundation.ids import DeliveryId, GraphId, TenantId, TriggerId
from foundation.recent import Recent
from graph_defs.expressions import Evaluator, ExpressionError, NotQuick, Scope, Template
from graph_defs.json_values import Json, JsonObject, kind_of
from graph_defs.triggers import WebhookTrigger

_KEPT: Final = 4_096
_QUICK_BYTES: Final = 64 * 2**10


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery that waits, as it was claimed."""

    tenant: TenantId
    delivery_id: DeliveryId
    trigger_id: TriggerId
    graph_id: GraphId
    headers: Mapping[str, str]
    query: Mapping[str, Json]
    body: bytes
    name: str
    config: str | None
    """The trigger's, as JSON text; None where it is gone."""

    @classmethod
    def of(cls, row: DictRow) -> "Delivery":
        given: dict[str, Any] = {**row, "body": row["body"] or b""}
        return cls(**given)


class Rejected(GraphwrightError):
    """The delivery cannot become a run; the message is its reason."""

    code = "delivery_rejected"
    status = 422


@dataclass(frozen=True, slots=True)
class _Prepared:
    filter: Template | None
    params: Template


class Decider:
    """Evaluates triggers' expressions. Those of triggers used last are kept compiled."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._prepared = Recent[str, _Prepared](_KEPT)

    def decide(self, delivery: Delivery, *, quickly: bool) -> JsonObject | None:
        """The params of its run; None where the filter does not want it.

        Raises :class:`Rejected`; and ``NotQuick``, where it is asked for ``quickly``, if it takes
        more than a fraction of a millisecond.
        """
        prepared = self._prepare(delivery)
        if quickly and len(delivery.body) > _QUICK_BYTES:
            raise NotQuick
        evaluator = self._evaluator
        evaluate = evaluator.evaluate_quickly if quickly else evaluator.evaluate_in_time
        scope = Scope(params={}, nodes={}, run={}, trigger=_seen(delivery))
        try:
            if prepared.filter is not None and not _wanted(evaluate(prepared.filter, scope)):
                return None
            params = evaluate(prepared.params, scope)
        except ExpressionError as error:
            raise Rejected(f"{error.message}. {error.hint}".strip()) from None
        if not isinstance(params, dict):
            raise Rejected(f"the trigger's params give {kind_of(params)}, and no object")
        return params

    def _prepare(self, delivery: Delivery) -> _Prepared:
        if delivery.config is None:
            raise Rejected("the graph has no such trigger any more")
        prepared = self._prepared.get(delivery.config)
        if prepared is None:
            trigger = WebhookTrigger.model_validate_json(delivery.config)
            wanted, params = trigger.filter, cast("Json", trigger.params)
            prepared = _Prepared(
                filter=None if wanted is None else self._evaluator.compile(wanted),
                params=self._evaluator.compile(params),
            )
            self._prepared.keep(delivery.config, prepared)
        return prepared


def _wanted(value: Json) -> bool:
    if not isinstance(value, bool):
        raise Rejected(f"the trigger's filter gives {kind_of(value)}, and neither true nor false")
    return value


def _seen(delivery: Delivery) -> JsonObject:
    """What expressions see as ``trigger``."""
    return {
        "type": "webhook",
        "name": delivery.name,
        "delivery_id": delivery.delivery_id,
        "headers": dict[str, Json](delivery.headers),
        "query": dict(delivery.query),
        "body": read_body(delivery.headers.get("content-type", ""), delivery.body),
    }


def read_body(content_type: str, body: bytes) -> Json:
    """A body as expressions see it: JSON as it is, a form as an object, everything else as text.

    Raises :class:`Rejected` where it is not what its type says.
    """
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == "application/json" or kind.endswith("+json"):
            return cast("Json", orjson.loads(body)) if body else None
        text = body.decode()
    except (orjson.JSONDecodeError, UnicodeDecodeError) as error:
        raise Rejected(f"the body is not what its type {kind} says: {error}") from None
    if kind != "application/x-www-form-urlencoded":
        return text
    fields: dict[str, Any] = parse_qs(text, keep_blank_values=True)
    return {name: values if len(values) > 1 else values[0] for name, values in fields.items()}
