"""Calls as their senders prove them: what the schemes of this folder verify."""

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, TypeAlias

from standardwebhooks import Webhook

from graph_defs.triggers import Scheme, WebhookTrigger
from sensors.signatures.base import sign
from sensors.signatures.hmac_scheme import DEFAULT_HEADER, spelled
from sensors.signatures.standard_webhooks import signing_key

Prove: TypeAlias = Callable[[WebhookTrigger, str, bytes, int], dict[str, str]]


def proof(trigger: WebhookTrigger, secret: str, body: bytes, at: int) -> dict[str, str]:
    """The headers by which a sender who knows the secret proves that it sends ``body`` at this
    Unix time; without those that say what the body is.

    Raises ValueError for a secret or a body that the scheme cannot sign.
    """
    return _SCHEMES[trigger.scheme](trigger, secret, body, at)


def _github(_trigger: WebhookTrigger, secret: str, body: bytes, _at: int) -> dict[str, str]:
    return {
        "X-Hub-Signature-256": f"sha256={sign(secret, body).hex()}",
        "X-GitHub-Delivery": str(uuid.uuid4()),
    }


def _standard(_trigger: WebhookTrigger, secret: str, body: bytes, at: int) -> dict[str, str]:
    key = signing_key(secret)
    if not key:
        raise ValueError("the secret is not base64, as Standard Webhooks has it")
    name = f"msg_{uuid.uuid4().hex}"
    return {
        "webhook-id": name,
        "webhook-timestamp": str(at),
        "webhook-signature": Webhook(key).sign(
            name, datetime.fromtimestamp(at, UTC), body.decode()
        ),
    }


def _stripe(_trigger: WebhookTrigger, secret: str, body: bytes, at: int) -> dict[str, str]:
    return {"Stripe-Signature": f"t={at},v1={sign(secret, f'{at}.'.encode(), body).hex()}"}


def _slack(_trigger: WebhookTrigger, secret: str, body: bytes, at: int) -> dict[str, str]:
    return {
        "X-Slack-Request-Timestamp": str(at),
        "X-Slack-Signature": f"v0={sign(secret, f'v0:{at}:'.encode(), body).hex()}",
    }


def _hmac(trigger: WebhookTrigger, secret: str, body: bytes, at: int) -> dict[str, str]:
    timed = {} if trigger.timestamp_header is None else {trigger.timestamp_header: str(at)}
    start = f"{at}.".encode() if timed else b""
    signature = spelled(trigger, sign(secret, start, body, algorithm=trigger.algorithm))
    return {**timed, trigger.header or DEFAULT_HEADER: f"{trigger.prefix}{signature}"}


def _token(trigger: WebhookTrigger, secret: str, _body: bytes, _at: int) -> dict[str, str]:
    return {trigger.header: secret} if trigger.header else {"Authorization": f"Bearer {secret}"}


def _none(_trigger: WebhookTrigger, _secret: str, _body: bytes, _at: int) -> dict[str, str]:
    return {}


_SCHEMES: Final[Mapping[Scheme, Prove]] = {
    "github": _github,
    "standard-webhooks": _standard,
    "stripe": _stripe,
    "slack": _slack,
    "hmac": _hmac,
    "token": _token,
    "none": _none,
}
