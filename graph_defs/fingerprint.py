"""A document's canonical form and its fingerprint: which documents are the same."""

import hashlib
from dataclasses import dataclass
from typing import Self

import rfc8785

from graph_defs.json_values import JsonObject


def canonical(document: JsonObject) -> bytes:
    """The RFC 8785 form: sorted keys, no white space, numbers as ECMAScript writes them.

    It is idempotent: reading it as JSON and writing it again gives the same bytes. ``document`` is
    what :func:`graph_defs.parsing.parse` returns, so its numbers and strings have such a form.
    """
    return rfc8785.dumps(document)


@dataclass(frozen=True, slots=True)
class Canonical:
    """A document with its canonical form, as it is stored."""

    document: JsonObject
    text: str
    """Its RFC 8785 form."""
    fingerprint: str
    """SHA-256 of that in UTF-8, 64 hex digits."""

    @classmethod
    def of(cls, document: JsonObject) -> Self:
        """Some 100 ms for each megabyte, so keep it off an event loop."""
        form = canonical(document)
        return cls(document, form.decode(), hashlib.sha256(form).hexdigest())
