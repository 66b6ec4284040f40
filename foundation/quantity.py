"""Amounts of CPUs and memory as Kubernetes writes them: ``500m``, ``1.5``, ``512Mi``, ``2G``."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Final

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

_UNITS: Final = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
}
_NUMBER: Final = r"[0-9]{1,12}(\.[0-9]{1,9})?"

CPU: Final = rf"{_NUMBER}m?"
MEMORY: Final = rf"{_NUMBER}(k|M|G|T|Ki|Mi|Gi|Ti)?"
"""Of the ``<quantity>`` of the Kubernetes API what people write: no sign, no exponent."""

# Linux gives no less than 1 ms of CPU in each tenth of a second, and Docker refuses less than that
# and less than 6 MiB when it makes the container. Both take 0 for no limit at all.
_LEAST_CPU: Final = "10m"
_LEAST_MEMORY: Final = "6Mi"


def parse_quantity(text: str) -> Decimal:
    """The CPUs, or bytes, that the text stands for. Raises ValueError where it is no quantity."""
    if not (re.fullmatch(CPU, text, re.ASCII) or re.fullmatch(MEMORY, text, re.ASCII)):
        raise ValueError(f"{text!r} is no quantity")
    unit = text.lstrip("0123456789.")
    return Decimal(text.removesuffix(unit)) * _UNITS[unit]


def _checked(what: str, pattern: str, least: str, example: str) -> Callable[[str], str]:
    written, floor = re.compile(pattern, re.ASCII), parse_quantity(least)

    def check(text: str) -> str:
        if written.fullmatch(text) and parse_quantity(text) >= floor:
            return text
        # The text is not repeated: it may be a secret's.
        raise PydanticCustomError(
            "bad_value",
            "This is no amount of {what}, or less than {least}.",
            {
                "what": what,
                "least": least,
                "hint": f"Write it as Kubernetes does: `{example}`. The least is `{least}`.",
            },
        )

    return check


Cpu = Annotated[
    str,
    AfterValidator(_checked("CPUs", CPU, _LEAST_CPU, "500m")),
    WithJsonSchema({"type": "string", "pattern": f"^{CPU}$"}),
]
"""CPUs: a hundredth of one or more."""
Memory = Annotated[
    str,
    AfterValidator(_checked("memory", MEMORY, _LEAST_MEMORY, "512Mi")),
    WithJsonSchema({"type": "string", "pattern": f"^{MEMORY}$"}),
]
"""Bytes: 6 MiB or more."""
