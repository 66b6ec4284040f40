"""The graph document, version 1: its models, which are its one definition."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import models_json_schema
from pydantic_core import PydanticCustomError

from graph_defs.json_schema.dialect import DIALECT
from graph_defs.names import NODE_NAME, RESERVED, GraphName, LabelName, NodeName, OutputName
from graph_defs.part import Part
from graph_defs.placement import Placement
from graph_defs.triggers import Notify, Trigger, TriggerName
from node_types.base import NodeType

API_VERSION = "graphwright/v1"
KIND = "Graph"

NodeReference = Annotated[
    str, WithJsonSchema({"type": "string", "pattern": f"^{NODE_NAME}$"})
]  # only a reference: whether there is such a node is for the validation to say
_ABOUT = frozenset({"title", "description", "default"})

_ANY_STRING: tuple[dict[str, Any], ...] = ({}, {"type": "string"}, {"$ref": "#/$defs/JsonValue"})

LabelValue = Annotated[str, Field(max_length=255)]

When: TypeAlias = Literal["succeeded", "failed", "always"]

LASTING_FAULTS = frozenset(
    {
        "expression_failed",
        "expression_too_costly",
        "invalid_with",
        "missing_secret",
        "output_too_deep",
        "output_too_large",
        "secret_too_short",
    }
)
"""Codes of faults that come again with every attempt, so that no node is tried again for them."""

_MAX_TIMEOUT = 30 * 86_400


def _check_retried(code: str) -> str:
    if code in LASTING_FAULTS:
        raise PydanticCustomError(
            "bad_value",
            "A fault with the code `{code}` would come again, so it is never tried again.",
            {"code": code, "hint": "Remove it, and correct what causes it."},
        )
    return code


RetriedCode = Annotated[
    str, Field(pattern="^[a-z][a-z0-9_]{0,62}$"), AfterValidator(_check_retried)
]


class Metadata(Part):
    """What the graph is called."""

    name: GraphName = Field(description="The graph's name, unique within its tenant.")
    description: str = Field("", max_length=4_096, description="What the graph does, for people.")
    labels: dict[LabelName, LabelValue] = Field(
        default={}, max_length=64, description="Names and values of your own, to tell graphs apart."
    )


class Retry(Part):
    """What happens when a node fails by a fault that may pass."""

    limit: int = Field(ge=1, le=100, description="How often the node is tried again.")
    delay_seconds: float = Field(
        0,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds to wait before the second attempt, and with `backoff: constant` "
        "before each further one.",
    )
    backoff: Literal["constant", "exponential"] = Field(
        "constant",
        description="`exponential`: each delay is twice the one before it.",
    )
    max_delay_seconds: float = Field(
        3_600,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="No delay is longer than this.",
    )
    jitter: float = Field(
        0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="The share of each delay that is random, so that what failed together is not "
        "tried again together: with 0.2 a delay of 10 seconds is one of 8 to 10.",
    )
    on: list[RetriedCode] | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="Codes of errors: only after one of these is the node tried again. Without "
        "it, after every fault that may pass.",
    )

    @model_validator(mode="after")
    def _longest_delay(self) -> Self:
        if self.delay_seconds > self.max_delay_seconds:
            raise PydanticCustomError(
                "conflicting_fields",
                "`delay_seconds` is more than `max_delay_seconds`, which is {most}.",
                {"most": f"{self.max_delay_seconds:,g}", "hint": "Raise `max_delay_seconds`."},
            )
        return self


class Concurrency(Part):
    """How many runs of the graph may be under way at the same time."""

    key: str | None = Field(
        None,
        min_length=1,
        max_length=8_192,
        description="Runs with the same key count together. It may hold `${{ CEL }}` over `params` "
        "and `trigger`. Without it, all runs of the graph count together.",
    )
    limit: int = Field(
        1, ge=1, le=10_000, description="How many runs with one key may be under way."
    )
    on_conflict: Literal["queue", "reject", "cancel_running"] = Field(
        "queue",
        description="What becomes of a run that would be one too many: it waits on the queue, it "
        "is refused, or the run that has been under way longest is cancelled for it.",
    )


class Node(Part):
    """One step of the graph."""

    type: str = Field(description="The node type, such as `data.transform`.")
    needs: list[NodeReference] = Field(
        default=[],
        json_schema_extra={"uniqueItems": True},
        description="Nodes that have to succeed before this one starts, unless `when` says "
        "otherwise. Expressions may refer to these, and to all that they need in turn.",
    )
    given: dict[str, JsonValue] = Field(
        default={},
        alias="with",
        description="What the node type asks for. Any value may be, or hold, `${{ CEL }}`.",
    )
    retry: Retry | None = Field(None, description="Without it, the first failure is the last.")
    timeout_seconds: float | None = Field(
        None,
        gt=0,
        le=_MAX_TIMEOUT,
        allow_inf_nan=False,
        description="How long one attempt may take; past it, it fails with the code `timeout`.",
    )
    continue_on_error: bool = Field(
        False,
        description="When the node has failed, the run goes on as if it had succeeded, but that it "
        "has no output.",
    )
    when: When = Field(
        "succeeded",
        description="When the node runs: once all that it needs has `succeeded`; or once all "
        "before it has ended, if a node before it has `failed`; or once all before it has ended, "
        "`always`. Otherwise it is skipped.",
    )

    @model_validator(mode="after")
    def _waits_for_something(self) -> Self:
        if self.when != "succeeded" and not self.needs:
            raise PydanticCustomError(
                "conflicting_fields",
                "The node runs by how others ended (`when: {when}`), and needs none.",
                {"when": self.when, "hint": "List in `needs` the nodes that it is to look at."},
            )
        return self


class GraphDocument(Placement):
    """A graph: nodes, what they need, what goes in and what comes out."""

    api_version: Literal["graphwright/v1"] = Field(
        alias="apiVersion", title="API version", description="The version of this format."
    )
    kind: Literal["Graph"] = Field(description="The kind of document.")
    metadata: Metadata
    params: dict[str, JsonValue] | None = Field(
        None,
        description="JSON Schema 2020-12 of the run's input object. Its defaults are filled in. "
        "Without it, a run takes no params.",
    )
    nodes: dict[NodeName, Node] = Field(min_length=1, description="The steps, by their names.")
    outputs: dict[OutputName, JsonValue] = Field(
        default={}, description="The run's outputs: values that may hold `${{ CEL }}`, by name."
    )
    timeout_seconds: float | None = Field(
        None,
        gt=0,
        le=_MAX_TIMEOUT,
        allow_inf_nan=False,
        description="How long a run may take from its first start, waits and pauses included; past "
        "it, it fails with the code `run_timeout`.",
    )
    concurrency: Concurrency | None = Field(
        None, description="Without it, any number of runs may be under way."
    )
    triggers: dict[TriggerName, Trigger] = Field(
        default={},
        max_length=100,
        description="What starts runs by itself: webhooks and timers, by their names.",
    )
    notify: dict[NodeName, Notify] = Field(
        default={}, max_length=16, description="What the end of a run sets off, by names."
    )


def json_schema(catalogue: Mapping[str, NodeType[Any, Any]] | None = None) -> dict[str, Any]:
    """The JSON Schema 2020-12 of the document, for editors to complete and check by.

    With a catalogue, it lists the node types, and asks of ``with`` what the node's type asks for; a
    value in it may be a string with an expression instead. What depends on other parts of the
    document (needs, references, cycles) is for the validation alone.
    """
    types = dict(catalogue or {})
    models = [GraphDocument, *(node_type.With for node_type in types.values())]
    _, shared = models_json_schema([(model, "validation") for model in models])
    parts: dict[str, Any] = shared["$defs"]
    schema: dict[str, Any] = parts.pop("GraphDocument")
    schema["$schema"] = DIALECT
    schema["title"] = "Graphwright graph"
    schema["properties"]["params"] = {
        "$ref": DIALECT,
        "title": "Params",
        "description": GraphDocument.model_fields["params"].description,
    }
    for names in ("nodes", "triggers", "notify"):
        schema["properties"][names]["propertyNames"] = {"not": {"enum": sorted(RESERVED)}}
    for names in ("nodes", "outputs", "triggers", "notify"):
        schema["properties"][names]["additionalProperties"] = False
    parts["Metadata"]["properties"]["labels"]["additionalProperties"] = False
    _describe_node(parts["Node"], types, parts)
    schema["$defs"] = parts
    return schema


def _describe_node(
    node: dict[str, Any], types: Mapping[str, NodeType[Any, Any]], parts: dict[str, Any]
) -> None:
    if not types:
        return
    node["properties"]["type"]["enum"] = list(types)
    node["allOf"] = []
    for name, node_type in types.items():
        model = node_type.With.__name__
        _admit_expressions(parts[model])
        needed = {"required": ["with"]} if parts[model].get("required") else {}
        given = {"properties": {"with": {"$ref": f"#/$defs/{model}"}}, **needed}
        chosen = {"properties": {"type": {"const": name}}, "required": ["type"]}
        node["allOf"].append({"if": chosen, "then": given})


def _admit_expressions(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema, but each value in an object or array may be a string with an expression."""
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            schema[keyword] = _or_expression(schema[keyword])
    for name, field in schema.get("properties", {}).items():
        schema["properties"][name] = _or_expression(field)
    for member in schema.get("anyOf", ()):
        _admit_expressions(member)
    return schema


def _or_expression(schema: dict[str, Any]) -> dict[str, Any]:
    if {key: schema[key] for key in schema.keys() - _ABOUT} in _ANY_STRING:
        return schema
    about = {key: value for key, value in schema.items() if key in _ABOUT}
    rest = {key: value for key, value in schema.items() if key not in _ABOUT}
    return {**about, "anyOf": [_admit_expressions(rest), {"type": "string", "pattern": r"\$\{\{"}]}
