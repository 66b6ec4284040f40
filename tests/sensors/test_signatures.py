"""Schemes against the vectors that their owners publish, and GitHub's real payloads."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from sensors.signatures import Refused
from tests.sensors.signing import GITHUB_PAYLOADS, ROOT, Signed, github, standard, trigger

GITHUB = Signed(
    trigger("github"),
    "It's a Secret to Everybody",
    {
        "X-Hub-Signature-256": "sha256="
        "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    },
    b"Hello, World!",
)
"""https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries"""

SLACK = Signed(
    trigger("slack"),
    "8f742231b10e8888abcd99yyyzzz85a5",
    {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": "1531420618",
        "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    },
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554"
    b"%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
    1531420618,
)
"""https://docs.slack.dev/authentication/verifying-requests-from-slack"""

STANDARD = Signed(
    trigger("standard-webhooks"),
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    },
    b'{"test": 2432232314}',
    1614265330,
)
"""The reference libraries' tests: github.com/standard-webhooks/standard-webhooks, libraries/"""

STRIPE = Signed(
    trigger("stripe"),
    "webhook_secret",
    {
        "Stripe-Signature": "t=1533204620,"
        "v1=2220f87ef101a04665f11cdf770523143f875572008577fa0f20882ddb9cc3c7,"
        "v0=63f3a72374a733066c4be69ed7f8e5ac85c22c9f0a6a612ab9a025a9e4ee7eef"
    },
    (ROOT / "tests" / "data" / "stripe" / "event_test_signature.json").read_bytes(),
    1533204620,
)
"""tests/data/stripe/LICENSE.md"""

RFC_4231 = Signed(
    trigger("hmac", algorithm="sha512"),
    "Jefe",
    {
        "X-Signature": "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
        "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
    },
    b"what do ya want for nothing?",
)
"""RFC 4231, test case 2"""

RFC_2202 = Signed(
    trigger("hmac", algorithm="sha1"),
    "Jefe",
    {"X-Signature": "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"},
    b"what do ya want for nothing?",
)
"""RFC 2202, test case 2 of HMAC-SHA-1"""

VECTORS = {
    "github": GITHUB,
    "slack": SLACK,
    "standard-webhooks": STANDARD,
    "stripe": STRIPE,
    "hmac sha512": RFC_4231,
    "hmac sha1": RFC_2202,
}
vectors = pytest.mark.parametrize("vector", VECTORS.values(), ids=list(VECTORS))


@vectors
def test_published_vector(vector: Signed) -> None:
    vector.verified()


@vectors
def test_published_vector_with_any_one_byte_changed(vector: Signed) -> None:
    for place in range(len(vector.body)):
        changed = bytearray(vector.body)
        changed[place] ^= 1
        with pytest.raises(Refused):
            vector.but(body=bytes(changed)).verified()


@vectors
def test_published_vector_with_any_one_byte_of_its_signature_changed(vector: Signed) -> None:
    for name, value in vector.headers.items():
        if name == "Content-Type":
            continue
        for place in range(len(value)):
            if name == "Stripe-Signature" and place > value.index(",v0="):
                break  # a scheme for tests, which is not looked at
            changed = value[:place] + chr(ord(value[place]) ^ 1) + value[place + 1 :]
            if changed.rstrip("=") == value.rstrip("="):
                continue
            with pytest.raises(Refused):
                vector.but(headers={**vector.headers, name: changed}).verified()


@vectors
def test_published_vector_cut_short_longer_or_with_another_secret(vector: Signed) -> None:
    for body in (b"", vector.body[:-1], vector.body + b"\n", b"\xff" + vector.body):
        with pytest.raises(Refused):
            vector.but(body=body).verified()
    with pytest.raises(Refused):
        vector.verified(vector.secret[:-4])


@pytest.mark.parametrize("path", GITHUB_PAYLOADS, ids=lambda path: path.name)
def test_real_github_payload(path: Path) -> None:
    signed = github(path.read_bytes(), secret="It's a Secret to Everybody")
    assert signed.verified().sender_id == "72d3162e-cc78-11e3-81ab-4c9367dc0958"
    for place in range(0, len(signed.body), 97):
        changed = bytearray(signed.body)
        changed[place] ^= 0x20
        with pytest.raises(Refused, match="does not match"):
            signed.but(body=bytes(changed)).verified()


def test_there_are_real_github_payloads() -> None:
    assert len(GITHUB_PAYLOADS) == 8


def test_signed_by_the_reference_library_and_verified_by_it() -> None:
    now = datetime.now(UTC)
    text = '{"grüße": "日本"}'
    signature = Webhook(STANDARD.secret).sign("msg_2", now, text)
    headers = {
        "webhook-id": "msg_2",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    Signed(STANDARD.trigger, STANDARD.secret, headers, text.encode()).verified()
    ours = standard(text.encode(), secret=STANDARD.secret, at=int(time.time()))
    Webhook(STANDARD.secret).verify(ours.body, ours.headers)
