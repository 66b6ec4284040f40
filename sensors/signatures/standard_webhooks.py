"""Standard Webhooks: https://github.com/standard-webhooks/standard-webhooks, spec v1

``webhook-signature`` holds any number of signatures, separated by spaces; one of ours is ``v1,``
and the base64 of the HMAC-SHA256 of ``<webhook-id>.<webhook-timestamp>.<body>``. A secret is
base64, with or without ``whsec_`` before it.

The package ``standardwebhooks`` computes the signatures. Its ``verify`` does not fit: it reads the
clock itself, knows one secret, and raises what Python happens to raise for a malformed header.
"""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

from graph_defs.triggers import WebhookTrigger
from sensors.signatures.base import (
    Call,
    Refused,
    Verified,
    check,
    check_time,
    id_key,
    known_id,
    required,
    signed_time,
)


def verify(_trigger: WebhookTrigger, secrets: Sequence[str], call: Call) -> Verified:
    sender_id = known_id(required(call, "webhook-id"))
    time = required(call, "webhook-timestamp")
    given = required(call, "webhook-signature")
    sent_at = signed_time("webhook-timestamp", time)
    # The package writes the time anew, so another spelling of it would pass unsigned.
    if sender_id is None or time != str(sent_at):
        raise Refused("webhook-id or webhook-timestamp is malformed")
    try:
        text = call.body.decode()
    except UnicodeDecodeError:
        raise Refused("the body is not UTF-8") from None
    signed_at = datetime.fromtimestamp(sent_at, UTC)
    usable = [key for secret in secrets if (key := signing_key(secret))]
    if not usable:
        raise Refused("the secret is not base64, as Standard Webhooks has it")
    check([Webhook(key).sign(sender_id, signed_at, text) for key in usable], given.split(" "))
    check_time(sent_at, call.at)
    return Verified((id_key(sender_id),), sender_id, is_timed=True)


def signing_key(secret: str) -> bytes:
    """What a secret stands for; empty where it is not base64. The package leaves out what is not,
    and of `%%%` nothing is left: anybody could sign with that.
    """
    text = secret.removeprefix("whsec_").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return b""
