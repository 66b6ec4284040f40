"""Calling a webhook as its sender would, to see what comes of it."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx

from foundation.errors import Fault, Invalid, Unavailable
from graph_defs.triggers import WebhookTrigger
from graphwright.client import Client
from graphwright.client.account_types import DeliveryDetail, Trigger
from graphwright.client.errors import json_of, raise_for_fault
from sensors.signatures.signing import proof

_STDIN: Final = "-"
_POLL_SECONDS: Final = 0.2  # deliveries have no stream of events


def call_webhook(trigger: Trigger, body: str, headers: Sequence[str], secret: str | None) -> str:
    """Send ``body``, JSON or ``-`` for standard input, with ``NAME:VALUE`` each; the delivery's id.

    ``secret`` names the file with the webhook's secret, by which the call is signed, or is ``-``.

    Raises Invalid, Unavailable, and the error that stands for a refusal.
    """
    if _STDIN == body == secret:
        raise _not_called("--secret", "taken_twice", "--body takes standard input already")
    content = sys.stdin.buffer.read() if body == _STDIN else body.encode()
    sent = {"Content-Type": "application/json"}
    if secret is not None:
        sent |= _proof(trigger, secret, content)
    for header in headers:
        name, colon, value = header.partition(":")
        if not (colon and name.strip()):
            raise _not_called("--header", "bad_header", f"{header!r} is not NAME:VALUE")
        sent[name.strip()] = value.strip()
    url = trigger["url"]
    assert url is not None, "a webhook has an address"
    try:
        answer = httpx.post(url, content=content, headers=sent, trust_env=False, timeout=30)
    except httpx.TransportError as error:
        raise Unavailable(f"cannot reach the webhook at {url}: {error}") from error
    raise_for_fault(answer)
    return json_of(answer)["delivery_id"]


def _proof(trigger: Trigger, secret: str, content: bytes) -> dict[str, str]:
    webhook = WebhookTrigger.model_validate(trigger["config"])
    try:
        text = sys.stdin.read() if secret == _STDIN else Path(secret).read_text("utf-8")
        return proof(webhook, text.rstrip("\r\n"), content, int(time.time()))
    except (OSError, ValueError) as error:
        raise _not_called("--secret", "bad_secret", str(error)) from error


def _not_called(where: str, code: str, message: str) -> Invalid:
    return Invalid("The webhook was not called.", [Fault(where, code, message)])


def decided(client: Client, delivery_id: str, timeout: float) -> DeliveryDetail:
    """The delivery with its verdict. Raises TimeoutError after so many seconds."""
    deadline = time.monotonic() + timeout
    while True:
        delivery = client.deliveries.get(delivery_id)
        if delivery["verdict"] != "pending":
            return delivery
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(_POLL_SECONDS)
