"""What the API needs for identity, alive between its start and its end."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from foundation.database import AsyncPool
from foundation.settings import Settings
from foundation.tenant_pool import TenantPool
from live_api.identity.api_keys import Hasher
from live_api.identity.attempts import Attempts
from live_api.identity.key_store import KeyStore
from live_api.identity.members import MemberStore
from live_api.identity.provider import Provider
from live_api.identity.provider_keys import ProviderKeys
from live_api.identity.sessions import Sessions
from live_api.identity.signing_key import SigningKey
from live_api.identity.verifier import Verifier


@dataclass(frozen=True, slots=True)
class Identity:
    """The collaborators of one application that know who calls."""

    key: SigningKey
    verifier: Verifier
    members: MemberStore
    keys: KeyStore
    sessions: Sessions
    attempts: Attempts


@asynccontextmanager
async def open_identity(
    settings: Settings, key: SigningKey, pool: AsyncPool, tenant_pool: TenantPool
) -> AsyncGenerator[Identity]:
    """They ask nothing of the database, nor of the provider, before the first request does."""
    members, hasher = MemberStore(tenant_pool), Hasher()
    async with _provider(settings, members) as provider:
        yield Identity(
            key=key,
            verifier=Verifier(key, provider),
            members=members,
            keys=KeyStore(tenant_pool, hasher),
            sessions=Sessions(pool, key, hasher),
            attempts=Attempts(),
        )


@asynccontextmanager
async def _provider(settings: Settings, members: MemberStore) -> AsyncGenerator[Provider | None]:
    if not settings.oidc_issuer:
        yield None
        return
    async with httpx.AsyncClient() as client:
        keys = ProviderKeys(client, settings.oidc_jwks_url)
        try:
            yield Provider(settings, keys, members)
        finally:
            await keys.close()
