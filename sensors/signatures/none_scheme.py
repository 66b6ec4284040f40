"""No proof: whoever knows the address may call."""

from collections.abc import Sequence

from graph_defs.triggers import WebhookTrigger
from sensors.signatures.base import Call, Verified, content_key, keys, known_id


def verify(trigger: WebhookTrigger, _secrets: Sequence[str], call: Call) -> Verified:
    return unsigned(trigger, call)


def unsigned(trigger: WebhookTrigger, call: Call) -> Verified:
    """A call of which nothing is signed: it is known by its id, or by all that it says."""
    sender_id = known_id(call.headers.get(trigger.id_header.lower())) if trigger.id_header else None
    return Verified(keys(sender_id, content_key(call.body, call.query.encode())), sender_id)
