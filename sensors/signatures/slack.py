"""Slack: https://docs.slack.dev/authentication/verifying-requests-from-slack

``X-Slack-Signature`` is ``v0=`` and the HMAC-SHA256 of ``v0:<X-Slack-Request-Timestamp>:<body>``,
in hex. Events are JSON and may ask first whether anybody is there (``url_verification``); slash
commands and interactions are forms.
"""

from collections.abc import Sequence

from graph_defs.triggers import WebhookTrigger
from sensors.signatures.base import (
    FORM,
    Call,
    Verified,
    check,
    check_time,
    content_key,
    content_type,
    keys,
    known_id,
    members,
    required,
    sign,
    signed_time,
)


def verify(_trigger: WebhookTrigger, secrets: Sequence[str], call: Call) -> Verified:
    given = required(call, "X-Slack-Signature")
    time = required(call, "X-Slack-Request-Timestamp")
    sent_at = signed_time("X-Slack-Request-Timestamp", time)
    start = f"v0:{time}:".encode()
    check([f"v0={sign(secret, start, call.body).hex()}" for secret in secrets], [given])
    check_time(sent_at, call.at)
    content = content_key(call.body)
    if content_type(call.headers) == FORM:
        # Slack shows the answer of a slash command in the channel.
        return Verified((content,), is_timed=True, silent=True)
    event = members(call.body)
    challenge = event.get("challenge")
    if event.get("type") == "url_verification" and isinstance(challenge, str):
        return Verified((), answer={"challenge": challenge})
    # Slack repeats an event that nobody answered under the same id; X-Slack-Retry-Num counts.
    sender_id = known_id(event.get("event_id"))
    return Verified(keys(sender_id, content), sender_id, is_timed=True)
