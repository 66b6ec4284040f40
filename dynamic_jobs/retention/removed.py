"""What there is to remove, and what was."""

from dataclasses import dataclass, fields
from typing import Final, Self

from foundation.settings import Settings

_WINDOWS_KEPT: Final = 5
"""Of the graphs that were used last, so many times as the window shows are remembered."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How long things are kept, where their tenant has no rule of its own."""

    days: int | None
    """After the end of a run or a backfill, or the verdict on a delivery; None is for ever."""
    key_hours: float
    recent_graphs: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            settings.retention_days or None,
            settings.idempotency_hours,
            settings.window_size * _WINDOWS_KEPT,
        )


@dataclass(frozen=True, slots=True)
class Removed:
    """How many of each were removed. ``outputs`` are rows, ``objects`` the large ones' contents."""

    runs: int = 0
    events: int = 0
    outputs: int = 0
    objects: int = 0
    deliveries: int = 0
    backfills: int = 0
    delivery_keys: int = 0
    idempotency_keys: int = 0
    tenant_days: int = 0
    recent_graphs: int = 0

    def __add__(self, other: "Removed") -> "Removed":
        names = (field.name for field in fields(self))
        return Removed(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def __bool__(self) -> bool:
        return self != Removed()
