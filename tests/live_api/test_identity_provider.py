"""Tokens of an OpenID provider: whose are taken, by which keys, and how often those are read."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, get_args

import httpx
import jwt
import pytest
from hypothesis import given, strategies

from foundation.errors import Unauthenticated, Unavailable
from foundation.ids import TenantId
from foundation.settings import Limits, Settings
from foundation.tenant_pool import TenantPool, tenant_sessions
from live_api.identity import ROLE_SCOPES, Principal, SigningKey, Verifier
from live_api.identity.members import MemberStore, NotAMember
from live_api.identity.provider import Provider
from live_api.identity.provider_keys import ProviderKeys, usable_keys
from tests.live_api.conftest import TokenFor, serving
from tests.live_api.fake_provider import (
    AUDIENCE,
    ISSUER,
    Algorithm,
    FakeProvider,
    Key,
    claims,
    key,
)
from tests.live_api.test_problems import check

pytestmark = pytest.mark.anyio

ACME = TenantId("acme")
OPERATOR = Principal(ACME, "operator", frozenset(), 0)
OWN_KEY = SigningKey(b"k" * 43)
RSA, CURVE, EDWARDS = key("RS256"), key("ES256", "curve"), key("EdDSA", "edwards")

Forge = Callable[[], str]


@dataclass
class Clock:
    now: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """A provider that serves, and who verifies its tokens."""

    provider: FakeProvider
    keys: ProviderKeys
    verifier: Verifier
    clock: Clock


def trusting(provider: FakeProvider) -> Settings:
    return Settings(oidc_issuer=ISSUER, oidc_audience=AUDIENCE, oidc_jwks_url=provider.url)


@pytest.fixture
def provider() -> Generator[FakeProvider]:
    with FakeProvider(RSA, CURVE, EDWARDS).serving() as provider:
        yield provider


@pytest.fixture
async def nobody() -> MemberStore:
    """Members that cannot be asked: for tokens that must not get so far."""
    return MemberStore(TenantPool(tenant_sessions("postgresql://nowhere.invalid/none")))


@pytest.fixture
async def pool(database_url: str) -> AsyncGenerator[TenantPool]:
    async with tenant_sessions(database_url) as sessions:
        yield TenantPool(sessions)


@pytest.fixture
async def members(pool: TenantPool) -> MemberStore:
    store = MemberStore(pool)
    await store.put(OPERATOR, "auth0|ann", "editor")
    return store


async def world_of(provider: FakeProvider, members: MemberStore) -> AsyncGenerator[World]:
    clock = Clock()
    async with httpx.AsyncClient() as client:
        keys = ProviderKeys(client, provider.url, clock)
        whole = Provider(trusting(provider), keys, members)
        yield World(provider, keys, Verifier(OWN_KEY, whole, clock), clock)
        await keys.close()


@pytest.fixture
async def world(provider: FakeProvider, members: MemberStore) -> AsyncGenerator[World]:
    async for made in world_of(provider, members):
        yield made


@pytest.fixture
async def closed_world(provider: FakeProvider, nobody: MemberStore) -> AsyncGenerator[World]:
    async for made in world_of(provider, nobody):
        yield made


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
async def test_good_token(world: World, algorithm: Algorithm) -> None:
    (signing,) = (each for each in (RSA, CURVE, EDWARDS) if each.algorithm == algorithm)
    expires = now() + 60
    caller = await world.verifier.verify(signing.sign(exp=expires))
    assert (caller.tenant, caller.subject, caller.role) == ("acme", "auth0|ann", "editor")
    assert caller.scopes == ROLE_SCOPES["editor"]
    assert (caller.token_id, caller.run_id) == ("1", None)
    assert caller.is_member
    assert caller.expires_at == expires + 5  # clocks may differ by as much


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def by_hmac(secret: bytes, kid: str) -> str:
    """A token by HS256, though PyJWT would not take a public key for a secret."""
    signing = jwt.get_algorithm_by_name("HS256")
    head = part({"alg": "HS256", "typ": "JWT", "kid": kid})
    text = f"{head}.{part(claims())}"
    signature = signing.sign(text.encode(), secret)
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def unsigned(algorithm: str) -> str:
    return f"{part({'alg': algorithm, 'kid': RSA.kid})}.{part(claims())}."


def stranger(kid: str = RSA.kid) -> Key:
    return Key(kid, "RS256", key("RS256", "stranger").private)


def now() -> int:
    return int(time.time())


FORGERIES: dict[str, Forge] = {
    "expired": lambda: RSA.sign(exp=now() - 60),
    "not yet good": lambda: RSA.sign(nbf=now() + 60),
    "from the future": lambda: RSA.sign(iat=now() + 60),
    "of another audience": lambda: RSA.sign(aud="elsewhere"),
    "of our own audience": lambda: RSA.sign(aud="graphwright"),
    "of another issuer": lambda: RSA.sign(iss="https://elsewhere.example.org/"),
    "of our own issuer": lambda: RSA.sign(iss="graphwright", aud="graphwright", scope=""),
    "of another key": lambda: stranger().sign(),
    "of our own key": lambda: jwt.encode(
        claims(), OWN_KEY, algorithm="HS256", headers={"kid": RSA.kid}
    ),
    "alg none": lambda: unsigned("none"),
    "alg None": lambda: unsigned("None"),
    "alg RS256, unsigned": lambda: unsigned("RS256"),
    "HS256 by the public key's PEM": lambda: by_hmac(RSA.pem(), RSA.kid),
    "HS256 by the modulus": lambda: by_hmac(RSA.jwk()["n"].encode(), RSA.kid),
    "HS256 by the curve's public key": lambda: by_hmac(CURVE.pem(), CURVE.kid),
    "RS512, which the key is not for": lambda: RSA.sign(algorithm="RS512"),
    "PS256, which the key is not for": lambda: RSA.sign(algorithm="PS256"),
    "by one key, in the name of another": lambda: CURVE.sign({"kid": RSA.kid}),
    "its own key in the header": lambda: stranger().sign({"jwk": stranger().jwk()}),
    "no kid, its own key in the header": lambda: stranger().sign(
        {"kid": None, "jwk": stranger().jwk()}
    ),
    "an address of its own keys": lambda: stranger("far").sign(
        {"jku": "http://127.0.0.1:9/keys", "x5u": "http://127.0.0.1:9/keys"}
    ),
    "unknown kid": lambda: stranger("unknown").sign(),
    "no kid, of several keys": lambda: RSA.sign({"kid": None}),
    "critical extension": lambda: RSA.sign({"crit": ["exp"], "exp": 1}),
    "no tenant": lambda: RSA.sign(tenant=None),
    "tenant is no text": lambda: RSA.sign(tenant=["acme"]),
    "tenant is no name": lambda: RSA.sign(tenant="Acme/../x"),
    "tenant of everybody": lambda: RSA.sign(tenant=""),
    "subject with a NUL": lambda: RSA.sign(sub="a\0"),
    "subject too long": lambda: RSA.sign(sub="a" * 256),
    "subject of an API key": lambda: RSA.sign(sub="key:abcd1234"),
    "id that is no text": lambda: RSA.sign(jti="\ud800"),
    "id too long": lambda: RSA.sign(jti="a" * 256),
    "scope is no text": lambda: RSA.sign(scope=["runs:read"]),
    "nested too deep": lambda: (
        f"{part({'alg': 'RS256', 'kid': RSA.kid})}."
        f"{base64.urlsafe_b64encode(b'[' * 40_000).rstrip(b'=').decode()}.AAAA"
    ),
    **{f"no {name}": lambda name=name: RSA.sign(**{name: None}) for name in ("iss", "aud", "sub")},
    "never expires": lambda: RSA.sign(exp=None),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
async def test_bad_token(closed_world: World, forge: Forge) -> None:
    with pytest.raises(Unauthenticated):
        await closed_world.verifier.verify(forge())
    assert set(closed_world.provider.asked) <= {"/"}


async def test_own_tokens_are_good_beside_the_providers(closed_world: World) -> None:
    own = {**claims(iss="graphwright", aud="graphwright"), "scope": "runs:read"}
    token = jwt.encode(own, OWN_KEY, algorithm="HS256")
    assert (await closed_world.verifier.verify(token)).scopes == {"runs:read"}
    assert closed_world.provider.asked == []


@given(place=strategies.integers(0, 2_000), byte=strategies.integers(0, 255))
def test_a_changed_byte_makes_it_no_token(place: int, byte: int) -> None:
    """By the pure half: a key, and a token of it."""
    for signing in (RSA, CURVE, EDWARDS):
        token = bytearray(signing.sign(exp=4_000_000_000, iat=None).encode())
        place %= len(token)
        if token[place] == byte or place == len(token) - 1:
            continue  # some bits of the last character mean nothing
        token[place] = byte
        found = usable_keys({"keys": [signing.jwk()]})[None]
        changed = token.decode("latin-1")
        with pytest.raises((jwt.InvalidTokenError, UnicodeError)):
            jwt.decode(changed, found, algorithms=[found.algorithm_name], audience=AUDIENCE)


async def test_a_new_key_is_taken_and_the_old_one_works_while_it_is_listed(world: World) -> None:
    await world.verifier.verify(RSA.sign())
    following = key("ES256", "following")
    world.provider.keys.append(following.jwk())
    with pytest.raises(Unauthenticated):  # it has just been asked
        await world.verifier.verify(following.sign())
    world.clock.now += 31
    await world.verifier.verify(following.sign())
    await world.verifier.verify(RSA.sign(jti="2"))
    assert len(world.provider.asked) == 2
    world.provider.keys = [following.jwk()]
    world.clock.now += 601
    with pytest.raises(Unauthenticated):
        await world.verifier.verify(RSA.sign(jti="3"))


async def test_keys_are_in_use_while_the_provider_is_away(world: World) -> None:
    await world.verifier.verify(RSA.sign())
    world.provider.status = 503
    for number in range(3):
        world.clock.now += 601
        await world.verifier.verify(RSA.sign(jti=str(number)))
    assert len(world.provider.asked) == 4
    world.provider.status = 200
    world.provider.keys = [CURVE.jwk()]
    world.clock.now += 31
    with pytest.raises(Unauthenticated):
        await world.verifier.verify(RSA.sign(jti="last"))


async def test_a_provider_that_never_answered_is_told_apart_from_a_bad_token(
    closed_world: World,
) -> None:
    closed_world.provider.status = 500
    with pytest.raises(Unavailable):
        await closed_world.verifier.verify(RSA.sign())


async def test_unknown_keys_do_not_hammer_the_provider(closed_world: World) -> None:
    async def refused(number: int) -> None:
        with pytest.raises(Unauthenticated):
            await closed_world.verifier.verify(stranger(str(number)).sign())

    await asyncio.gather(*(refused(number) for number in range(50)))
    assert len(closed_world.provider.asked) == 1
    closed_world.clock.now += 31
    await asyncio.gather(*(refused(number) for number in range(50)))
    assert len(closed_world.provider.asked) == 2


async def test_the_only_key_needs_no_name(world: World) -> None:
    world.provider.keys = [CURVE.jwk()]
    assert (await world.verifier.verify(CURVE.sign({"kid": None}))).subject == "auth0|ann"


@pytest.mark.parametrize(
    "unusable",
    [
        None,
        "key",
        {},
        {"kty": "RSA", "kid": "a"},
        {"kty": "oct", "kid": "a", "k": "c2VjcmV0"},
        {"kty": "oct", "kid": "a", "k": "c2VjcmV0", "alg": "RS256"},
        {**RSA.jwk(), "alg": "HS256"},
        {**RSA.jwk(), "alg": "none"},
        {**RSA.jwk(), "alg": "RS512"},
        {**RSA.jwk(), "alg": ["RS256"]},
        {**RSA.jwk(), "use": "enc"},
        {**RSA.jwk(), "kid": 1},
    ],
)
def test_keys_that_are_not_for_this_are_left_out(unusable: Any) -> None:
    keys = usable_keys({"keys": [unusable, CURVE.jwk()]})
    assert set(keys) == {"curve", None}


@pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}])
def test_what_is_no_list_of_keys_replaces_none(document: Any) -> None:
    with pytest.raises(ValueError, match="JWKS"):
        usable_keys(document)


async def test_a_key_too_short_is_not_trusted(closed_world: World) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    short = Key("short", "RS256", rsa.generate_private_key(65537, 1024))
    closed_world.provider.keys = [short.jwk()]
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = short.sign()
    with pytest.raises(Unauthenticated):
        await closed_world.verifier.verify(token)


async def test_scopes_make_less_of_a_role_and_never_more(world: World) -> None:
    for scope, expected in {
        "openid email": ROLE_SCOPES["editor"],
        "openid runs:read": {"runs:read"},
        "runs:read members:write": {"runs:read"},
        "members:write": set[str](),
    }.items():
        assert (await world.verifier.verify(RSA.sign(scope=scope))).scopes == expected


async def test_only_members_are_let_in(world: World) -> None:
    for token in (RSA.sign(sub="auth0|bob"), RSA.sign(tenant="globex")):
        with pytest.raises(NotAMember):
            await world.verifier.verify(token)


async def test_a_role_is_read_again_after_half_a_minute(world: World, members: MemberStore) -> None:
    token = RSA.sign(exp=now() + 3_600)
    first = await world.verifier.verify(token)
    await members.put(OPERATOR, "auth0|ann", "viewer")
    assert await world.verifier.verify(token) is first
    world.clock.now += 31
    assert (await world.verifier.verify(token)).role == "viewer"
    await members.delete(ACME, "auth0|ann")
    world.clock.now += 31
    with pytest.raises(NotAMember):
        await world.verifier.verify(token)


def test_a_provider_over_http(
    settings: Settings, limits: Limits, provider: FakeProvider, token_for: TokenFor
) -> None:
    trusted = settings.model_copy(
        update={
            "oidc_issuer": ISSUER,
            "oidc_audience": AUDIENCE,
            "oidc_jwks_url": provider.url,
            "oidc_tenant_claim": "https://example.org/tenant",
        }
    )
    extra: dict[str, Any] = {"tenant": None, "https://example.org/tenant": "acme"}
    with serving(trusted, limits) as url, httpx.Client(base_url=url, timeout=30) as client:

        def get(token: str) -> httpx.Response:
            return client.get("/api/v1/graphs", headers={"Authorization": f"Bearer {token}"})

        refused = get(EDWARDS.sign(**extra))
        check(refused, 403, "not_a_member")
        admin = {"Authorization": f"Bearer {token_for()}"}
        path = "/api/v1/members/auth0|ann"
        assert client.put(path, json={"role": "viewer"}, headers=admin).status_code == 201
        assert get(EDWARDS.sign(**extra)).status_code == 200
        check(get(EDWARDS.sign()), 401, "unauthenticated")
        for forge in FORGERIES.values():
            answer = client.get(
                "/api/v1/graphs", headers={b"Authorization": b"Bearer " + forge().encode()}
            )
            check(answer, 401, "unauthenticated")


@pytest.mark.parametrize(
    "missing",
    [
        {"oidc_audience": "", "oidc_jwks_url": "https://a.example/keys"},
        {"oidc_audience": "a", "oidc_jwks_url": ""},
        {"oidc_audience": "a", "oidc_jwks_url": "file:///keys"},
    ],
)
def test_a_provider_is_trusted_for_one_audience_and_by_its_keys(missing: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"oidc_audience|address of the provider"):
        Settings(oidc_issuer=ISSUER, **missing)
