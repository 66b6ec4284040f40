"""How a webhook's sender proves itself: one module for each scheme, chosen by the trigger."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from graph_defs.triggers import Scheme, WebhookTrigger
from sensors.signatures import (
    github,
    hmac_scheme,
    none_scheme,
    slack,
    standard_webhooks,
    stripe,
    token,
)
from sensors.signatures.base import Call, Refused, Verified

__all__ = ["Call", "Refused", "Verified", "verify"]

Verify: TypeAlias = Callable[[WebhookTrigger, Sequence[str], Call], Verified]

_SCHEMES: Final[Mapping[Scheme, Verify]] = {
    "github": github.verify,
    "standard-webhooks": standard_webhooks.verify,
    "stripe": stripe.verify,
    "slack": slack.verify,
    "hmac": hmac_scheme.verify,
    "token": token.verify,
    "none": none_scheme.verify,
}


def verify(trigger: WebhookTrigger, secrets: Sequence[str], call: Call) -> Verified:
    """What is known of ``call``, which comes from who knows one of ``secrets``: several may be
    valid at once. Looks at nothing but its arguments.

    Raises Refused where the call does not prove that.
    """
    usable = [secret for secret in secrets if secret]  # anybody can sign with an empty one
    if not usable and trigger.scheme != "none":
        raise Refused(f"the secret `{trigger.secret}` is not set")
    return _SCHEMES[trigger.scheme](trigger, usable, call)
