"""How long the body of which request may be."""

import re
from collections.abc import Callable
from typing import Final

from starlette.types import Scope

from foundation.settings import Limits
from live_api.middleware import Bound

_TOKENS: Final = Bound(16 * 2**10)
"""Below /auth, where strangers are read: a token has at most 4 KiB."""
_BESIDE_PARAMS: Final = 64 * 2**10
_DOCUMENTS: Final = re.compile(r"/api/v1/graphs(/validate|/[^/]+/draft)?")


def bounds(limits: Limits) -> Callable[[Scope], Bound]:
    """The bound of each request, by its path."""
    document = Bound(limits.max_document_bytes, "GRAPHWRIGHT_MAX_DOCUMENT_BYTES")
    params = Bound(limits.max_params_bytes + _BESIDE_PARAMS, "GRAPHWRIGHT_MAX_PARAMS_BYTES")
    batch = max(document, params, key=lambda bound: bound.size)

    def bound_of(scope: Scope) -> Bound:
        path: str = scope["path"]
        if path.startswith("/api/v1/auth/"):
            return _TOKENS
        if path == "/api/v1/runs/batch":
            return batch
        return document if _DOCUMENTS.fullmatch(path) else params

    return bound_of
