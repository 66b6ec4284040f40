"""``data.transform``: one value, computed by the expressions in it."""

from pydantic import Field, JsonValue, RootModel

from node_types.base import Fields, InlineNodeType


class Transform(Fields):
    """A value, usually one expression."""

    value: JsonValue = Field(description="Any JSON; the expressions inside it are evaluated.")


Value = RootModel[JsonValue]  # made once: to parametrize a model takes longer than to fill it


class DataTransform(InlineNodeType[Transform, Value]):
    """Passes on its value; the work is in the expressions, which are evaluated before it runs."""

    name = "data.transform"
    version = 1
    effects = "none"
    With = Transform
    Output = Value

    def compute(self, given: Transform) -> Value:
        return Value(given.value)
