"""A secret in a header: ``Authorization: Bearer …`` (RFC 6750), or all of the header that the
trigger names, such as GitLab's ``X-Gitlab-Token``.
"""

import hashlib
from collections.abc import Sequence

from graph_defs.triggers import WebhookTrigger
from sensors.signatures.base import Call, Refused, Verified, check, required
from sensors.signatures.none_scheme import unsigned


def verify(trigger: WebhookTrigger, secrets: Sequence[str], call: Call) -> Verified:
    given = required(call, trigger.header or "Authorization")
    if trigger.header is None:
        kind, _, given = given.partition(" ")
        if kind.lower() != "bearer":
            raise Refused("Authorization is not `Bearer`")
    # By their hashes, so that the time it takes does not tell how long the token is.
    check([_hash(secret) for secret in secrets], [_hash(given.strip())])
    return unsigned(trigger, call)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
