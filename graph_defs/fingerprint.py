"""A document's canonical form and its fingerprint: which documents are the same."""

import hashlib

import rfc8785

from graph_defs.json_values import JsonObject


def canonical(document: JsonObject) -> bytes:
    """The RFC 8785 form: sorted keys, no white space, numbers as ECMAScript writes them.

    It is idempotent: reading it as JSON and writing it again gives the same bytes. ``document`` is
    what :func:`graph_defs.parsing.parse` returns, so its numbers and strings have such a form.
    """
    return rfc8785.dumps(document)


def fingerprint(document: JsonObject) -> str:
    """SHA-256 of the canonical form, 64 hex digits."""
    return hashlib.sha256(canonical(document)).hexdigest()
