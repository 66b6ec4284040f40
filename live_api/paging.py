"""How lists are read page by page."""

from typing import Annotated, TypeAlias

from fastapi import Query
from pydantic import Field

Cursor: TypeAlias = Annotated[str | None, Query(description="`next_cursor` of the page before.")]
NextCursor: TypeAlias = Annotated[
    str | None, Field(description="Send it as `cursor` for the next page.")
]
