"""What holds for every scheme: only the secret's holder passes, in time, and a repeat is known."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.signatures import Call, Refused, verify
from sensors.signatures.base import kept_keys
from sensors.signatures.signing import proof
from tests.sensors import signing
from tests.sensors.signing import SIGNERS, TIMED, TOKENS, Signed, trigger

BODY = b'{"id": "evt_1", "event_id": "Ev1", "n": 1}'

Signer = Callable[..., Signed]

signers = pytest.mark.parametrize("sign", SIGNERS.values(), ids=list(SIGNERS))
timed = pytest.mark.parametrize("sign", TIMED.values(), ids=list(TIMED))
proving = pytest.mark.parametrize("sign", {**SIGNERS, **TOKENS}.values(), ids=[*SIGNERS, *TOKENS])
utf8 = st.text(min_size=1, max_size=200).map(str.encode)


@signers
@given(body=utf8, data=st.data())
def test_any_flipped_bit_of_the_body_is_refused(
    sign: Signer, body: bytes, data: st.DataObject
) -> None:
    signed = sign(body)
    signed.verified()
    bit = data.draw(st.integers(0, len(body) * 8 - 1))
    changed = bytearray(body)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Refused):
        signed.but(body=bytes(changed)).verified()


@proving
@given(body=utf8)
def test_what_we_sign_ourselves_passes(sign: Signer, body: bytes) -> None:
    """As long as the secret is the same, and nobody's else."""
    known = sign(body)
    headers = proof(known.trigger, known.secret, body, int(known.at))
    ours = known.but(headers={**signing.JSON, **headers})
    ours.verified()
    with pytest.raises(Refused):
        ours.verified("b3RoZXI=")


@proving
@given(
    body=st.binary(max_size=64),
    values=st.lists(st.text(st.characters(max_codepoint=255), max_size=80), max_size=6),
)
def test_garbage_is_refused_and_never_raises_anything_else(
    sign: Signer, body: bytes, values: list[str]
) -> None:
    names = [name for name in sign(BODY).headers if name != "Content-Type"]
    garbage = sign(BODY).but(body=body, headers=dict(zip(names, values, strict=False)))
    with pytest.raises(Refused):
        garbage.verified()


@proving
def test_no_header_may_be_missing(sign: Signer) -> None:
    signed = sign(BODY)
    proof = [name for name in signed.headers if name.lower() not in _NOT_PROVING]
    assert proof
    for name in proof:
        for headers in (
            {key: value for key, value in signed.headers.items() if key != name},
            {**signed.headers, name: ""},
        ):
            with pytest.raises(Refused):
                signed.but(headers=headers).verified()


_NOT_PROVING = {
    "content-type",
    "x-github-event",
    "x-github-delivery",
    "x-shopify-webhook-id",
    "x-gitlab-event-uuid",
}


@proving
def test_of_two_valid_secrets_either_signs(sign: Signer) -> None:
    signed, other = sign(BODY), "whsec_b3RoZXIgc2VjcmV0IG9mIG91cnM="
    signed.verified(signed.secret, other)
    signed.verified(other, signed.secret)
    with pytest.raises(Refused, match="does not match"):
        signed.verified(other)


@proving
def test_without_a_secret_nothing_passes(sign: Signer) -> None:
    signed = sign(BODY)
    for secrets in ((), ("",)):
        with pytest.raises(Refused, match="`key` is not set"):
            verify(signed.trigger, secrets, signed.call())


def test_signing_with_an_empty_secret_is_no_use() -> None:
    signed = signing.github(BODY, secret="")
    with pytest.raises(Refused):
        verify(signed.trigger, ("", "s3cret"), signed.call())


@timed
def test_five_minutes_either_way(sign: Signer) -> None:
    now = 1_800_000_000
    for sent_at in (now - 300, now, now + 300):
        assert sign(BODY, at=sent_at).but(at=now).verified().is_timed
    for sent_at, reason in ((now - 301, "301 s ago"), (now + 301, "301 s in the future")):
        with pytest.raises(Refused, match=reason):
            sign(BODY, at=sent_at).but(at=now).verified()


@timed
@pytest.mark.parametrize("text", ["", "-1", "1e9", "nan", "1800000000.5", "١٨", "9" * 12, " 1"])
def test_malformed_time(sign: Signer, text: str) -> None:
    signed = sign(BODY)
    stamp = f"{signed.at:.0f}"
    headers = {name: value.replace(stamp, text) for name, value in signed.headers.items()}
    with pytest.raises(Refused):
        signed.but(headers=headers).verified()


@timed
def test_stale_is_told_only_to_who_has_signed(sign: Signer) -> None:
    stale = sign(BODY, at=1_000_000_000).but(at=time.time())
    with pytest.raises(Refused, match="s ago"):
        stale.verified()
    with pytest.raises(Refused, match="does not match"):
        stale.but(body=BODY + b" ").verified()


def test_several_signatures_in_one_header() -> None:
    body, at = BODY, time.time()
    stripe = signing.stripe(body, at=at)
    good = stripe.headers["Stripe-Signature"]
    stripe.with_headers(stripe_signature=f"{good},v1={'0' * 64}").verified()
    stripe.with_headers(stripe_signature=good.replace(",v1", f",v1={'0' * 64},v1")).verified()
    standard = signing.standard(body, at=at)
    good = standard.headers["webhook-signature"]
    standard.with_headers(webhook_signature=f"v1a,AAAA v1,bm9wZQ== {good} v2").verified()
    with pytest.raises(Refused):  # a signature of a scheme that is not asked for
        stripe.with_headers(stripe_signature=f"t={at:.0f},v0={'0' * 64}").verified()
    with pytest.raises(Refused):
        standard.with_headers(webhook_signature=good.replace("v1,", "v2,")).verified()


@pytest.mark.parametrize("secret", ["whsec_", "whsec_%%%", "no base64!", "ключ"])
def test_standard_webhooks_with_a_secret_that_is_none(secret: str) -> None:
    for key in ("whsec_c2VjcmV0IG9mIDI0IGJ5dGVzISEh", "whsec_"):  # the last is empty
        with pytest.raises(Refused, match="not base64"):
            signing.standard(BODY, secret=key).verified(secret)


@pytest.mark.parametrize("other", ["no base64!", "ключ", "whsec_", "!!!"])
def test_standard_webhooks_while_a_secret_that_is_none_is_valid_too(other: str) -> None:
    signed = signing.standard(BODY)
    signed.verified(signed.secret, other)
    signed.verified(other, signed.secret)
    with pytest.raises(Refused, match="does not match"):
        signing.standard(BODY, secret="whsec_").verified(other, signed.secret)


def test_standard_webhooks_secrets_without_padding() -> None:
    signing.standard(BODY, secret="whsec_YWJjZA==").verified("YWJjZA")


def test_spellings_of_hmac() -> None:
    signed = signing.hmac_hex(BODY)
    signed.with_headers(x_signature=signed.headers["X-Signature"].upper()).verified()
    base64 = signing.shopify(BODY)
    unpadded = base64.headers["X-Shopify-Hmac-Sha256"].rstrip("=")
    base64.with_headers(x_shopify_hmac_sha256=unpadded).verified()
    prefixed = signing.timed(BODY)
    with pytest.raises(Refused, match="does not begin with"):
        prefixed.with_headers(x_sig=prefixed.headers["X-Sig"].removeprefix("sha512=")).verified()


def test_token_is_bearer_or_the_whole_header() -> None:
    bearer = signing.token(BODY)
    bearer.with_headers(authorization="bearer t0ken").verified()
    for other in ("t0ken", "Basic t0ken", "Bearer t0ken2", "Bearer t0ke", "Bearer ", "Bearer"):
        with pytest.raises(Refused):
            bearer.with_headers(authorization=other).verified()
    with pytest.raises(Refused):
        signing.gitlab(BODY).with_headers(x_gitlab_token="Bearer t0ken").verified()


def test_handshakes() -> None:
    ping = signing.github(BODY).with_headers(x_github_event="ping").verified()
    assert (ping.answer, ping.keys) == ({"answer": "pong"}, ())
    challenge = b'{"token": "T", "challenge": "3eZbrw1a", "type": "url_verification"}'
    assert signing.slack(challenge).verified().answer == {"challenge": "3eZbrw1a"}
    with pytest.raises(Refused):
        signing.slack(challenge).but(secret="other").verified()
    assert signing.slack(b'{"type": "url_verification", "challenge": 1}').verified().answer is None
    assert signing.slack(b"[1]").verified().answer is None


@pytest.mark.parametrize(
    ("signed", "sender_id", "keys"),
    [
        (signing.github(BODY), "72d3162e-cc78-11e3-81ab-4c9367dc0958", 2),
        (signing.github(BODY).with_headers(x_github_delivery=None), None, 1),
        (signing.standard(BODY), "msg_1", 1),
        (signing.stripe(BODY), "evt_1", 1),
        (signing.stripe(b"{}"), None, 1),
        (signing.stripe(b'{"id": "a\\u0000"}'), None, 1),
        (signing.stripe(b'{"id": ["evt"]}'), None, 1),
        (signing.slack(BODY), "Ev1", 1),
        (signing.slack(b"a=1", form=True), None, 1),
        (signing.hmac_hex(BODY), None, 1),
        (signing.hmac_hex(BODY, id_header="X-Id"), None, 1),
        (signing.hmac_hex(BODY, id_header="X-Id").with_headers(x_id="7"), "7", 2),
        (signing.hmac_hex(BODY, id_header="X-Id").with_headers(x_id="é"), None, 1),
        (signing.gitlab(BODY), "13792a34", 1),
        (signing.token(BODY), None, 1),
    ],
)
def test_by_what_a_repeat_is_known(signed: Signed, sender_id: str | None, keys: int) -> None:
    verified = signed.verified()
    assert verified.sender_id == sender_id
    assert len(verified.keys) == keys
    assert not verified.silent or signed.headers["content-type"].endswith("urlencoded")


def test_a_replay_under_another_id_is_known_by_its_content() -> None:
    first = signing.github(BODY)
    again = first.with_headers(x_github_delivery="another")
    assert set(first.verified().keys) & set(again.verified().keys)
    named = signing.hmac_hex(BODY, id_header="X-Id")
    assert set(named.with_headers(x_id="1").verified().keys) & set(
        named.with_headers(x_id="2").verified().keys
    )


def test_a_signed_time_tells_equal_bodies_apart() -> None:
    now = time.time()
    first = signing.timed(BODY, at=now, id_header="X-Id").with_headers(x_id="1")
    later = signing.timed(BODY, at=now + 2, id_header="X-Id").with_headers(x_id="2")
    replay = first.with_headers(x_id="2")
    assert not set(first.verified().keys) & set(later.verified().keys)
    assert set(first.verified().keys) & set(replay.verified().keys)


def test_calls_without_a_signature_differ_by_query_too() -> None:
    def keys(query: str, body: bytes) -> tuple[str, ...]:
        return verify(trigger("none"), (), Call({}, query, body, 0)).keys

    assert keys("a=1", b"") == keys("a=1", b"")
    assert len({keys("", b"a=1"), keys("a=1", b""), keys("a=1", b"a=1"), keys("", b"")}) == 4


_DAYS = 3 * 86_400
_NAMED = signing.hmac_hex(BODY, id_header="X-Id").with_headers(x_id="7")


@pytest.mark.parametrize(
    ("signed", "dedupe", "seconds"),
    [
        (signing.github(BODY), None, [_DAYS, 300]),
        (signing.github(BODY), "1h", [3_600, 300]),
        (signing.github(BODY), "10s", [10, 10]),
        (signing.github(BODY), "off", []),
        (signing.github(BODY).with_headers(x_github_delivery=None), None, [300]),
        (_NAMED, None, [_DAYS, 300]),
        (signing.hmac_hex(BODY), None, [300]),
        (signing.hmac_hex(BODY), "1h", [3_600]),
        (signing.token(BODY), None, [300]),
        (signing.standard(BODY), None, [_DAYS]),
    ],
)
def test_how_long_a_repeat_is_known(
    signed: Signed, dedupe: str | None, seconds: list[float]
) -> None:
    """By its id for long; by its content, which other events may have too, shortly."""
    trigger = signed.trigger.model_copy(update={"dedupe": dedupe})
    assert list(kept_keys(trigger, signed.verified()).values()) == seconds


@timed
@pytest.mark.parametrize("dedupe", [None, "10s"])
def test_a_call_that_passes_for_a_while_is_known_for_longer(
    sign: Signer, dedupe: str | None
) -> None:
    """From five minutes before the time that is signed to five after it, and while it is read."""
    signed = sign(BODY)
    trigger = signed.trigger.model_copy(update={"dedupe": dedupe})
    assert min(kept_keys(trigger, signed.verified()).values()) >= 600 + 10
