"""The graph document, version 1: its models, which are its one definition."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, WithJsonSchema

from graph_defs.names import NODE_NAME, GraphName, LabelName, NodeName, OutputName

API_VERSION = "graphwright/v1"
KIND = "Graph"

NodeReference = Annotated[
    str, WithJsonSchema({"type": "string", "pattern": f"^{NODE_NAME}$"})
]  # only a reference: whether there is such a node is for the validation to say
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


class Node(Part):
    """One step of the graph."""

    type: str = Field(description="The node type, such as `data.transform`.")
    needs: list[NodeReference] = Field(
        default=[],
        description="Nodes that have to succeed before this one starts. Expressions may refer to "
        "these, and to all that they need in turn.",
    )
    given: dict[str, JsonValue] = Field(
        default={},
        alias="with",
        description="What the node type asks for. Any value may be, or hold, `${{ CEL }}`.",
    )


class GraphDocument(Part):
    """A graph: nodes, what they need, what goes in and what comes out."""

    api_version: Literal["graphwright/v1"] = Field(
        alias="apiVersion", description="The version of this format."
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
