"""The bound on work: schemas come from users, and a few lines of them can ask for years."""

from typing import Protocol

import re2

MAX_WORK = 2_000_000
"""Units for checking one value or one schema; a unit is a keyword or a value looked at, about 1 µs
of Python."""

_CHARACTER = 16
"""Units for matching one character: RE2 is linear, but in text length times program size."""
_PATTERN = 2_000
"""Units for compiling one pattern."""
_PATTERN_MEMORY = 256 * 1024


class TooMuchWorkError(Exception):
    """The meter ran out."""


class PatternError(ValueError):
    """A regular expression that RE2 does not take."""


class Pattern(Protocol):
    """A compiled regular expression, as far as it is used here (re2 has no public name for it)."""

    def search(self, text: str) -> object | None:
        """The first match, or None."""
        ...


class Meter:
    """Counts the work of one check, and holds the patterns that were compiled for it."""

    def __init__(self, work: int = MAX_WORK) -> None:
        self._left = work
        self._patterns: dict[str, Pattern] = {}

    def charge(self, units: int) -> None:
        """Take units off.

        Raises:
            TooMuchWorkError: none are left.
        """
        self._left -= units
        if self._left < 0:
            raise TooMuchWorkError

    def matches(self, pattern: str, text: str) -> bool:
        """Whether a pattern occurs in a text; in time linear in the text (RE2).

        Raises:
            PatternError: RE2 does not take the pattern.
            TooMuchWorkError: no units are left.
        """
        compiled = self.compile(pattern)
        self.charge(1 + len(text) * _CHARACTER)
        return compiled.search(text) is not None

    def compile(self, pattern: str) -> Pattern:
        """Compile a pattern, or take it from those compiled before.

        Raises:
            PatternError: RE2 does not take it.
            TooMuchWorkError: no units are left.
        """
        compiled = self._patterns.get(pattern)
        if compiled is None:
            self.charge(_PATTERN)
            options = re2.Options()
            options.log_errors = False
            options.max_mem = _PATTERN_MEMORY
            compiled = _compile(pattern, options)
            self._patterns[pattern] = compiled
        return compiled


def _compile(pattern: str, options: re2.Options) -> Pattern:
    try:
        return re2.compile(pattern, options)
    except Exception as error:
        if not isinstance(error, re2.error):
            raise
        reason: object = error.args[0] if error.args else ""
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise PatternError(text) from error
