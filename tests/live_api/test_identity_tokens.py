"""Tokens and the key that signs them; who is let in, over HTTP."""

import base64
import json
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, tzinfo
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import httpx
import jwt
import pytest
from hypothesis import given, strategies

from foundation.errors import Forbidden, Invalid, Unauthenticated
from foundation.settings import Settings
from live_api.identity import (
    ROLE_SCOPES,
    ROLES,
    SCOPES,
    SigningKey,
    SigningKeyError,
    Verifier,
    issue_token,
    signing_key,
    verify,
)
from tests.live_api.conftest import readiness

pytestmark = pytest.mark.anyio

KEY = SigningKey(b"k" * 43)
OTHER_KEY = SigningKey(b"o" * 43)

Forge = Callable[[SigningKey], str]


def claims(**changes: object) -> dict[str, Any]:
    now = int(time.time())
    return {
        "iss": "graphwright",
        "aud": "graphwright",
        "sub": "ann",
        "tenant": "acme",
        "scope": "runs:read",
        "iat": now,
        "exp": now + 60,
        "jti": "1",
        **changes,
    }


def signed(key: SigningKey, **changes: object) -> str:
    return jwt.encode(claims(**changes), key, algorithm="HS256")


def without(key: SigningKey, claim: str) -> str:
    given = claims()
    del given[claim]
    return jwt.encode(given, key, algorithm="HS256")


def unsigned(key: SigningKey, algorithm: str) -> str:
    """A token that names ``algorithm`` and has no signature; PyJWT would not make each of them."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims())}."


def tampered(key: SigningKey) -> str:
    head, _, signature = signed(key).split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(tenant="victim")).encode()).rstrip(b"=")
    return f"{head}.{body.decode()}.{signature}"


FORGERIES: dict[str, Forge] = {
    "expired": lambda key: signed(key, exp=int(time.time()) - 60),
    "from the future": lambda key: signed(key, iat=int(time.time()) + 3600),
    "of another audience": lambda key: signed(key, aud="elsewhere"),
    "of another issuer": lambda key: signed(key, iss="elsewhere"),
    "of another key": lambda _: signed(OTHER_KEY),
    "alg none": lambda key: unsigned(key, "none"),
    "alg NONE": lambda key: unsigned(key, "NONE"),
    "alg HS256, unsigned": lambda key: unsigned(key, "HS256"),
    "HS512": lambda key: jwt.encode(claims(), key * 2, algorithm="HS512"),
    "alg RS256": lambda key: unsigned(key, "RS256") + "AAAA",
    "alg HS256, by a key of the token's own": lambda _: jwt.encode(
        claims(), OTHER_KEY, algorithm="HS256", headers={"jwk": {"kty": "oct", "k": "b29v"}}
    ),
    "tampered": tampered,
    "tenant is no text": lambda key: signed(key, tenant=["acme"]),
    "tenant is no name": lambda key: signed(key, tenant="../acme"),
    "tenant with a line break": lambda key: signed(key, tenant="acme\n"),
    "scope is no text": lambda key: signed(key, scope=["runs:read"]),
    "empty": lambda _: "",
    "not a token": lambda _: "a.b",
    "nested too deep": lambda _: (
        base64.urlsafe_b64encode(b"[" * 40_000).rstrip(b"=").decode() + ".e30.AAAA"
    ),
    "not ASCII": lambda _: "é.é.é",
    **{
        f"no {claim}": lambda key, claim=claim: without(key, claim)
        for claim in ("iss", "aud", "sub", "tenant", "scope", "iat", "exp", "jti")
    },
}


def test_token_round_trip() -> None:
    caller = verify(KEY, issue_token(KEY, "acme", "ann", ["runs:read", "runs:write"], 60))
    assert (caller.tenant, caller.subject) == ("acme", "ann")
    assert caller.scopes == {"runs:read", "runs:write"}


def test_claims_are_those_of_the_interface() -> None:
    token = issue_token(KEY, "acme", "ann", lifetime=3600)
    found = jwt.decode(token, KEY, algorithms=["HS256"], audience="graphwright")
    assert set(found) == {"iss", "aud", "sub", "tenant", "scope", "iat", "exp", "jti"}
    assert found["exp"] - found["iat"] == 3600
    assert found["scope"].split() == list(SCOPES)


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_bad_token(forge: Forge) -> None:
    token = forge(KEY)
    with pytest.raises(Unauthenticated):
        verify(KEY, token)


async def test_a_verifier_remembers_no_longer_than_a_token_is_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.time()

    class Clock(datetime):
        """PyJWT's, which stands still."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(now, tz)

    monkeypatch.setattr("jwt.api_jwt.datetime", Clock)
    verifier, later = (Verifier(KEY, clock=lambda: now) for _ in range(2))
    token = signed(KEY, iat=int(now), exp=int(now) + 60)
    caller = await verifier.verify(token)
    assert await verifier.verify(token) is caller
    now = caller.expires_at - 1  # after its `exp`, but clocks may differ by 5 s
    assert await verifier.verify(token) is caller
    assert await later.verify(token) == caller
    now = caller.expires_at
    for each in (verifier, later):
        with pytest.raises(Unauthenticated, match="expired"):
            await each.verify(token)


async def test_a_verifier_refuses_as_before_what_resembles_a_token_that_it_knows() -> None:
    verifier = Verifier(KEY)
    token = signed(KEY)
    await verifier.verify(token)
    for forge in FORGERIES.values():
        with pytest.raises(Unauthenticated):
            await verifier.verify(forge(KEY))
    for other in (token[:-1], f"{token} ", token.upper()):
        with pytest.raises(Unauthenticated):
            await verifier.verify(other)


@given(strategies.text(), strategies.integers(0, 300))
def test_garbage_is_never_more_than_unauthenticated(garbage: str, place: int) -> None:
    good = signed(KEY)
    for token in (garbage, good[:place] + garbage + good[place:]):
        if token not in {good, f"{good}="}:  # some write the padding of the signature
            with pytest.raises(Unauthenticated):
                verify(KEY, token)


@pytest.mark.parametrize("tenant", ["", "A", "-a", "a-", "a" * 64, "a b", "a\n", "ä"])
def test_bad_tenant_gets_no_token(tenant: str) -> None:
    with pytest.raises(Invalid):
        issue_token(KEY, tenant, "ann")


def test_scopes_are_required() -> None:
    caller = verify(KEY, signed(KEY, scope="runs:read"))
    caller.require("runs:read")
    with pytest.raises(Forbidden, match="runs:write"):
        caller.require("runs:write")


def test_key_is_made_once_and_private(tmp_path: Path) -> None:
    state = tmp_path / "state"
    key = signing_key(state)
    assert signing_key(state) == key
    assert len(key) >= 32
    assert stat.S_IMODE((state / "signing.key").stat().st_mode) == 0o600
    assert [file.name for file in state.iterdir()] == ["signing.key"]


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        keys = set(threads.map(signing_key, [tmp_path] * 64))
    assert len(keys) == 1


def test_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    signing_key(tmp_path)
    (tmp_path / "signing.key").chmod(0o640)
    with pytest.raises(SigningKeyError, match="can be read by others"):
        signing_key(tmp_path)


def test_short_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "signing.key").write_bytes(b"short\n")
    (tmp_path / "signing.key").chmod(0o600)
    with pytest.raises(SigningKeyError, match="32 bytes"):
        signing_key(tmp_path)


def test_no_token_over_http(anonymous: httpx.Client) -> None:
    answer = anonymous.get("/api/v1/graphs")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="graphwright"'
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "unauthenticated"


def test_bad_tokens_over_http(anonymous: httpx.Client, settings: Settings) -> None:
    key = signing_key(settings.state)
    for name, forge in FORGERIES.items():
        if name == "empty":
            continue  # httpx does not send it
        headers = {b"Authorization": b"Bearer " + forge(key).encode("latin-1")}
        answer = anonymous.get("/api/v1/graphs", headers=headers)
        assert answer.status_code == 401, name
        assert answer.headers["www-authenticate"].startswith("Bearer"), name
        assert answer.json()["code"] == "unauthenticated", name


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "bearer\tx", "Token x"])
def test_other_schemes_over_http(anonymous: httpx.Client, header: str) -> None:
    answer = anonymous.get("/api/v1/graphs", headers={"Authorization": header})
    assert answer.status_code == 401


def test_missing_scope_over_http(client_for: Callable[..., httpx.Client]) -> None:
    reader = client_for(scopes=("graphs:read",))
    assert reader.get("/api/v1/graphs").status_code == 200
    answer = reader.post("/api/v1/graphs", content=b"{}")
    assert answer.status_code == 403
    assert answer.json()["code"] == "forbidden"
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/docs"])
def test_open_paths_need_no_token(anonymous: httpx.Client, path: str) -> None:
    readiness(anonymous)
    assert anonymous.get(path).status_code == 200


def test_each_role_may_do_what_those_before_it_may() -> None:
    for lower, higher in pairwise(ROLES):
        assert ROLE_SCOPES[lower] < ROLE_SCOPES[higher]
    assert ROLE_SCOPES["admin"] == set(SCOPES)


@given(place=strategies.integers(0, 2_000), byte=strategies.integers(0, 127))
def test_a_changed_byte_makes_it_no_token(place: int, byte: int) -> None:
    """But for the last character, some of whose bits mean nothing."""
    token = signed(KEY)
    place %= len(token) - 1
    changed = token[:place] + chr(byte) + token[place + 1 :]
    if changed != token:
        with pytest.raises(Unauthenticated):
            verify(KEY, changed)
