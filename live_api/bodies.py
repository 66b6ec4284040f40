"""What all bodies of requests have in common."""

from typing import Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

_MOST_TOLD: Final = 2_000
"""Faults that are made objects of, at some 6 µs each; of these the answer has the first."""


class Body(BaseModel):
    """The body of a request, without unknown fields.

    Where it has thousands of faults they are counted, and not told: a megabyte of unknown fields
    would keep all others waiting.
    """

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _tell_few_faults(cls, given: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(given)
        except ValidationError as error:
            count = error.error_count()
            if count <= _MOST_TOLD:
                raise
            raise PydanticCustomError(
                "too_many_faults", "There are {count} faults here", {"count": f"{count:,}"}
            ) from None
