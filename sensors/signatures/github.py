"""GitHub: https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries

``X-Hub-Signature-256`` is ``sha256=`` and the HMAC-SHA256 of the raw body, in hex.
"""

from collections.abc import Sequence

from graph_defs.triggers import WebhookTrigger
from sensors.signatures.base import (
    Call,
    Verified,
    check,
    content_key,
    id_key,
    known_id,
    required,
    sign,
)


def verify(_trigger: WebhookTrigger, secrets: Sequence[str], call: Call) -> Verified:
    given = required(call, "X-Hub-Signature-256")
    check([f"sha256={sign(secret, call.body).hex()}" for secret in secrets], [given])
    if call.headers.get("x-github-event") == "ping":
        return Verified((), answer={"answer": "pong"})
    # The id is not signed: whoever has seen a call can send it again with another. So for a while
    # the same body is the same call too; not for longer, since equal bodies may be two events.
    content = content_key(call.body)
    sender_id = known_id(call.headers.get("x-github-delivery"))
    return Verified((content,) if sender_id is None else (id_key(sender_id), content), sender_id)
