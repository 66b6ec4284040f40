"""The base of every model that is a part of the graph document."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Immutable, no coercion, and no unknown field passes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
