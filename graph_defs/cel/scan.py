"""Finds ``${{ … }}`` in a string.

An expression ends at the first ``}}`` that is neither inside a CEL string, a quoted identifier or a
comment, nor closes braces that were opened in it: ``${{ {'a': {'b': '}}'}} }}`` is one expression.
``$${{`` stands for the characters ``${{``.
"""

import re
from dataclasses import dataclass
from typing import Final

OPEN: Final = "${{"

_OPENING: Final = re.compile(r"\$?\$\{\{")
_TOKEN: Final = re.compile(
    r"""
      (?<!\w)(?:[rR][bB]?|[bB][rR])                            # raw: a backslash is only itself
          (?:\"{3}.*?\"{3} | '{3}.*?'{3} | "[^"\n]*" | '[^'\n]*')
    | \"{3}(?:\\.|[^\\])*?\"{3} | '{3}(?:\\.|[^\\])*?'{3}
    | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'
    | `[^`\n]*`
    | //[^\n]*
    | (?P<unclosed>["'`])
    | (?P<open>\{)
    | (?P<close>\})
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Source:
    """The text of one expression, without ``${{``, ``}}`` and the blanks around it."""

    text: str


class ScanFault(Exception):
    """An expression that does not end. The message says why, in a user's words."""


def scan(text: str) -> list[str | Source]:
    """The literal pieces, with escapes undone, and the expressions of ``text``, in order.

    Empty pieces are left out. Raises `ScanFault`.
    """
    if OPEN not in text:
        return [text] if text else []
    parts: list[str | Source] = []
    literal: list[str] = []
    position = 0
    while opening := _OPENING.search(text, position):
        literal.append(text[position : opening.start()])
        if opening.group() != OPEN:
            literal.append(OPEN)
            position = opening.end()
            continue
        if piece := "".join(literal):
            parts.append(piece)
        literal.clear()
        end = _end(text, opening.end())
        parts.append(Source(text[opening.end() : end].strip()))
        position = end + 2
    if piece := "".join([*literal, text[position:]]):
        parts.append(piece)
    return parts


def _end(text: str, start: int) -> int:
    depth = 0
    for token in _TOKEN.finditer(text, start):
        match token.lastgroup:
            case "unclosed":
                quote = token.group()
                raise ScanFault(f"a string that begins with {quote} is not closed")
            case "open":
                depth += 1
            case "close" if depth:
                depth -= 1
            case "close" if text.startswith("}}", token.start()):
                return token.start()
            case "close":
                raise ScanFault("a } closes nothing")
            case _:
                pass
    raise ScanFault("there is no }} to close it")
