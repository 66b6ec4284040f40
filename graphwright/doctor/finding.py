"""What a check of an installation has found."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """``mend`` is what to do about it; only what is ``wrong`` keeps the installation from working,
    and what is ``skipped`` could not be looked at."""

    check: str
    state: Literal["ok", "warning", "wrong", "skipped"]
    says: str
    mend: str = ""


def ok(check: str, says: str) -> Finding:
    return Finding(check, "ok", says)


def warning(check: str, says: str, mend: str) -> Finding:
    return Finding(check, "warning", says, mend)


def wrong(check: str, says: str, mend: str = "") -> Finding:
    return Finding(check, "wrong", says, mend)


def skipped(check: str, says: str) -> Finding:
    return Finding(check, "skipped", says)
