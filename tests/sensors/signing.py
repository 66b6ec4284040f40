"""Calls as senders sign them, written by the senders' own rules and not with our code."""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from graph_defs.triggers import WebhookTrigger
from sensors.signatures import Call, Verified, verify

ROOT: Final = Path(__file__).parent.parent.parent
GITHUB_PAYLOADS: Final = sorted((ROOT / "examples" / "data" / "github").glob("*.payload.json"))
JSON: Final = {"content-type": "application/json"}
FORM: Final = {"content-type": "application/x-www-form-urlencoded"}


def trigger(scheme: str, **fields: Any) -> WebhookTrigger:
    """A trigger of this scheme, with the secret ``key`` where it takes one."""
    secret: dict[str, Any] = {} if scheme == "none" else {"secret": "key"}
    return WebhookTrigger.model_validate({"type": "webhook", "scheme": scheme, **secret, **fields})


def mac(secret: str | bytes, signed: bytes, algorithm: str = "sha256") -> bytes:
    key = secret.encode() if isinstance(secret, str) else secret
    return hmac.new(key, signed, getattr(hashlib, algorithm)).digest()


@dataclass(frozen=True)
class Signed:
    """A call, what proves it, and when it was sent."""

    trigger: WebhookTrigger
    secret: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.time)

    def call(self) -> Call:
        return Call(
            {name.lower(): value for name, value in self.headers.items()}, "", self.body, self.at
        )

    def verified(self, *secrets: str) -> Verified:
        """With these secrets instead of its own. Raises Refused."""
        return verify(self.trigger, secrets or (self.secret,), self.call())

    def but(self, **changes: Any) -> "Signed":
        return replace(self, **changes)

    def with_headers(self, **headers: str | None) -> "Signed":
        """With other headers, ``_`` for ``-``; None leaves one out."""
        named = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        kept = {name: value for name, value in self.headers.items() if name.lower() not in named}
        added = {name: value for name, value in named.items() if value is not None}
        return self.but(headers={**kept, **added})


def github(body: bytes, *, secret: str = "s3cret", **headers: str) -> Signed:
    signature = f"sha256={mac(secret, body).hex()}"
    event = {"X-GitHub-Event": "push", "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958"}
    sent = {**JSON, **event, **headers, "X-Hub-Signature-256": signature}
    return Signed(trigger("github"), secret, sent, body)


def standard(
    body: bytes,
    *,
    secret: str = "whsec_c2VjcmV0IG9mIDI0IGJ5dGVzISEh",
    at: float | None = None,
    sender_id: str = "msg_1",
) -> Signed:
    at = time.time() if at is None else at
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signature = base64.b64encode(mac(key, f"{sender_id}.{at:.0f}.".encode() + body)).decode()
    headers = {
        **JSON,
        "webhook-id": sender_id,
        "webhook-timestamp": f"{at:.0f}",
        "webhook-signature": f"v1,{signature}",
    }
    return Signed(trigger("standard-webhooks"), secret, headers, body, at)


def stripe(body: bytes, *, secret: str = "whsec_abc", at: float | None = None) -> Signed:
    at = time.time() if at is None else at
    signature = mac(secret, f"{at:.0f}.".encode() + body).hex()
    return Signed(
        trigger("stripe"),
        secret,
        {**JSON, "Stripe-Signature": f"t={at:.0f},v1={signature}"},
        body,
        at,
    )


def slack(
    body: bytes, *, secret: str = "8f742231", at: float | None = None, form: bool = False
) -> Signed:
    at = time.time() if at is None else at
    headers = {
        **(FORM if form else JSON),
        "X-Slack-Request-Timestamp": f"{at:.0f}",
        "X-Slack-Signature": f"v0={mac(secret, f'v0:{at:.0f}:'.encode() + body).hex()}",
    }
    return Signed(trigger("slack"), secret, headers, body, at)


def hmac_hex(body: bytes, *, secret: str = "s3cret", **fields: Any) -> Signed:
    """``hmac`` as it is where the trigger says nothing, or what ``fields`` say of the id only."""
    headers = {**JSON, "X-Signature": mac(secret, body).hex()}
    return Signed(trigger("hmac", **fields), secret, headers, body)


def shopify(body: bytes, *, secret: str = "hush") -> Signed:
    """https://shopify.dev/docs/apps/build/webhooks/verify-deliveries"""
    fields = {
        "header": "X-Shopify-Hmac-Sha256",
        "encoding": "base64",
        "id_header": "X-Shopify-Webhook-Id",
    }
    signature = base64.b64encode(mac(secret, body)).decode()
    headers = {**JSON, "X-Shopify-Hmac-Sha256": signature, "X-Shopify-Webhook-Id": "b54557e4"}
    return Signed(trigger("hmac", **fields), secret, headers, body)


def timed(body: bytes, *, secret: str = "s3cret", at: float | None = None, **fields: Any) -> Signed:
    """``hmac`` with a prefix, another hash and a signed time."""
    at = time.time() if at is None else at
    headers = {
        **JSON,
        "X-Sig": f"sha512={mac(secret, f'{at:.0f}.'.encode() + body, 'sha512').hex()}",
        "X-Sent": f"{at:.0f}",
    }
    given = {
        "header": "X-Sig",
        "prefix": "sha512=",
        "algorithm": "sha512",
        "timestamp_header": "X-Sent",
    }
    return Signed(trigger("hmac", **given, **fields), secret, headers, body, at)


def token(body: bytes, *, secret: str = "t0ken") -> Signed:
    return Signed(trigger("token"), secret, {**JSON, "Authorization": f"Bearer {secret}"}, body)


def gitlab(body: bytes, *, secret: str = "t0ken") -> Signed:
    """https://docs.gitlab.com/user/project/integrations/webhooks/"""
    headers = {**JSON, "X-Gitlab-Token": secret, "X-Gitlab-Event-UUID": "13792a34"}
    fields = {"header": "X-Gitlab-Token", "id_header": "X-Gitlab-Event-UUID"}
    return Signed(trigger("token", **fields), secret, headers, body)


SIGNERS: Final[dict[str, Callable[[bytes], Signed]]] = {
    "github": github,
    "standard-webhooks": standard,
    "stripe": stripe,
    "slack": slack,
    "slack form": lambda body: slack(body, form=True),
    "hmac": hmac_hex,
    "hmac of shopify": shopify,
    "hmac with a time": timed,
}
"""Every way to sign a body."""

TIMED: Final[dict[str, Callable[..., Signed]]] = {
    "standard-webhooks": standard,
    "stripe": stripe,
    "slack": slack,
    "hmac with a time": timed,
}
"""Those that sign when it was sent."""

TOKENS: Final[dict[str, Callable[..., Signed]]] = {"token": token, "token of gitlab": gitlab}
