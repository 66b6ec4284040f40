"""Stripe: https://docs.stripe.com/webhooks#verify-manually

``Stripe-Signature`` is ``t=<time>,v1=<signature>``, with any number of each other part; a signature
is the HMAC-SHA256 of ``<time>.<body>``, in hex. The secret is all of ``whsec_…``.
"""

from collections.abc import Sequence

from graph_defs.triggers import WebhookTrigger
from sensors.signatures.base import (
    Call,
    Refused,
    Verified,
    check,
    check_time,
    content_key,
    keys,
    known_id,
    members,
    required,
    sign,
    signed_time,
)


def verify(_trigger: WebhookTrigger, secrets: Sequence[str], call: Call) -> Verified:
    parts = [part.strip().partition("=") for part in required(call, "Stripe-Signature").split(",")]
    times = [value for name, _, value in parts if name == "t"]
    if len(times) != 1:
        raise Refused("Stripe-Signature has no time")
    sent_at = signed_time("Stripe-Signature", times[0])
    given = [value for name, _, value in parts if name == "v1"]
    start = f"{times[0]}.".encode()
    check([sign(secret, start, call.body).hex() for secret in secrets], given)
    check_time(sent_at, call.at)
    sender_id = known_id(members(call.body).get("id"))
    return Verified(keys(sender_id, content_key(call.body)), sender_id, is_timed=True)
