"""``data.transform``: one value, computed by the expressions in it."""

from pydantic import Field, JsonValue, RootModel

from node_types.base import Fields, InlineNodeType


class Transform(Fields):
    """A value, usually one expression."""

    value: JsonValue = Field(description="Any JSON; the expressions inside it are evaluated.")


class DataTransform(InlineNodeType[Transform, RootModel[JsonValue]]):
    """Passes on its value; the work is in the expressions, which are evaluated before it runs."""

    name = "data.transform"
    version = 1
    effects = "none"
    With = Transform
    Output = RootModel[JsonValue]

    def compute(self, given: Transform) -> RootModel[JsonValue]:
        return RootModel[JsonValue](given.value)
