"""A figure: a quantile of samples, with what it takes to judge it."""

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

_DIGITS = 4


class Figure(BaseModel):
    """``value`` in ``unit``; the samples reached from ``low`` to ``high``, and were ``count``."""

    model_config = ConfigDict(frozen=True)

    value: float
    unit: str
    low: float
    high: float
    count: int


def quantile(samples: Sequence[float], q: float) -> float:
    """The sample at rank ⌈q·n⌉ (nearest rank), ``q`` above 0 and up to 1; no interpolation."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def figure(samples: Sequence[float], unit: str, *, q: float = 0.5, scale: float = 1.0) -> Figure:
    """The quantile ``q`` of the samples, each times ``scale``, rounded to 4 significant digits."""
    scaled = [each * scale for each in samples]
    return Figure(
        value=significant(quantile(scaled, q)),
        unit=unit,
        low=significant(min(scaled)),
        high=significant(max(scaled)),
        count=len(scaled),
    )


def milliseconds(seconds: Sequence[float], q: float = 0.5) -> Figure:
    return figure(seconds, "ms", q=q, scale=1000.0)


def significant(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def shown(value: float) -> str:
    """Three significant digits, thousands separated: 0.123, 12.3, 1,230."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    rounded = round(value, 2 - math.floor(math.log10(abs(value))))
    text = f"{rounded:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
