"""The graph document, version 1: its models, which are its one definition."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, WithJsonSchema
from pydantic.json_schema import models_json_schema

from graph_defs.json_schema.dialect import DIALECT
from graph_defs.names import NODE_NAME, RESERVED, GraphName, LabelName, NodeName, OutputName
from node_types.base import NodeType

API_VERSION = "graphwright/v1"
KIND = "Graph"

NodeReference = Annotated[
    str, WithJsonSchema({"type": "string", "pattern": f"^{NODE_NAME}$"})
]  # only a reference: whether there is such a node is for the validation to say
_ABOUT = frozenset({"title", "description", "default"})

_ANY_STRING: tuple[dict[str, Any], ...] = ({}, {"type": "string"}, {"$ref": "#/$defs/JsonValue"})

LabelValue = Annotated[str, Field(max_length=255)]


class Part(BaseModel):
    """Base of the document's models: immutable, no coercion, and no unknown field passes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


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
        description="Seconds to wait before each further attempt.",
    )


class Node(Part):
    """One step of the graph."""

    type: str = Field(description="The node type, such as `data.transform`.")
    needs: list[NodeReference] = Field(
        default=[],
        json_schema_extra={"uniqueItems": True},
        description="Nodes that have to succeed before this one starts. Expressions may refer to "
        "these, and to all that they need in turn.",
    )
    given: dict[str, JsonValue] = Field(
        default={},
        alias="with",
        description="What the node type asks for. Any value may be, or hold, `${{ CEL }}`.",
    )
    retry: Retry | None = Field(None, description="Without it, the first failure is the last.")


class GraphDocument(Part):
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
    schema["properties"]["nodes"]["propertyNames"] = {"not": {"enum": sorted(RESERVED)}}
    for names in (schema["properties"]["nodes"], schema["properties"]["outputs"]):
        names["additionalProperties"] = False
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
