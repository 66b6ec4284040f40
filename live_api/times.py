"""Times in requests."""

from datetime import datetime
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator, AwareDatetime

_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 9998


def _can_be_stored(value: datetime) -> datetime:
    if not _FIRST_YEAR <= value.year <= _LAST_YEAR:
        raise ValueError(f"the year must be from {_FIRST_YEAR} to {_LAST_YEAR}")
    return value


Time: TypeAlias = Annotated[AwareDatetime, AfterValidator(_can_be_stored)]
"""RFC 3339 with an offset, of a year that Python and PostgreSQL have in every time zone."""
