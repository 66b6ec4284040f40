"""HMAC (RFC 2104) over the body, or over ``<time>.<body>``, with header and spelling as the trigger
says: what most senders without a scheme of their own do.
"""

import base64
from collections.abc import Sequence
from typing import Final

from graph_defs.triggers import WebhookTrigger
from sensors.signatures.base import (
    Call,
    Refused,
    Verified,
    check,
    check_time,
    content_key,
    id_key,
    known_id,
    required,
    sign,
    signed_time,
)

DEFAULT_HEADER: Final = "X-Signature"


def verify(trigger: WebhookTrigger, secrets: Sequence[str], call: Call) -> Verified:
    header = trigger.header or DEFAULT_HEADER
    given = required(call, header)
    if not given.startswith(trigger.prefix):
        raise Refused(f"{header} does not begin with `{trigger.prefix}`")
    start, sent_at = b"", None
    if trigger.timestamp_header is not None:
        time = required(call, trigger.timestamp_header)
        sent_at = signed_time(trigger.timestamp_header, time)
        start = f"{time}.".encode()
    signatures = [sign(each, start, call.body, algorithm=trigger.algorithm) for each in secrets]
    sent = _normal(trigger, given.removeprefix(trigger.prefix))
    check([spelled(trigger, signature) for signature in signatures], [sent])
    is_timed = sent_at is not None
    if sent_at is not None:
        check_time(sent_at, call.at)
    sender_id = known_id(call.headers.get(trigger.id_header.lower())) if trigger.id_header else None
    if sender_id is None:
        # Without the time: who tries again signs the same event anew.
        return Verified((content_key(call.body),), is_timed=is_timed)
    # As GitHub's, the id is not signed. A time that is tells calls with equal bodies apart.
    return Verified((id_key(sender_id), content_key(start, call.body)), sender_id, is_timed)


def spelled(trigger: WebhookTrigger, signature: bytes) -> str:
    """The signature as the trigger's header has it, without the prefix."""
    if trigger.encoding == "hex":
        return signature.hex()
    return base64.b64encode(signature).decode().rstrip("=")


def _normal(trigger: WebhookTrigger, given: str) -> str:
    """Senders differ in the case of hex, and in whether base64 is padded."""
    return given.strip().lower() if trigger.encoding == "hex" else given.strip().rstrip("=")
