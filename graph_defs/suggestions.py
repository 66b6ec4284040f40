"""Did you mean …? for names that are not there."""

from collections.abc import Iterable
from difflib import get_close_matches

_MAX_LENGTH = 80
_MAX_COMPARISONS = 50_000


class Suggester:
    """Finds the name that was probably meant.

    Comparing costs about 10 µs a pair, and a document may have ten thousand wrong names for ten
    thousand right ones: past a number of comparisons, one instance suggests nothing more.
    """

    def __init__(self) -> None:
        self._left = _MAX_COMPARISONS

    def closest(self, name: str, names: Iterable[str]) -> str | None:
        """The most similar of ``names``, or None where none is close."""
        candidates = [each for each in names if len(each) <= _MAX_LENGTH]
        self._left -= len(candidates)
        if self._left < 0 or len(name) > _MAX_LENGTH:
            return None
        matches = get_close_matches(name, candidates, n=1)
        return matches[0] if matches else None

    def did_you_mean(self, name: str, names: Iterable[str]) -> str:
        """A hint with the most similar of ``names``; empty where none is close."""
        match = self.closest(name, names)
        return f"Did you mean `{match}`?" if match else ""
