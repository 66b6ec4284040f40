"""Tokens that the command line signs itself."""

import pytest

from foundation.errors import Invalid
from foundation.settings import Settings
from graphwright.access import tenant_token
from live_api.identity import ROLE_SCOPES, ROLES, SCOPES, signing_key, verify

pytestmark = pytest.mark.anyio


async def test_a_token_of_a_role_has_its_scopes(settings: Settings) -> None:
    key = signing_key(settings.state)
    for role in ROLES:
        caller = verify(key, await tenant_token(settings, "acme", role=role, hours=1))
        assert (caller.role, caller.scopes) == (role, ROLE_SCOPES[role])
    caller = verify(key, await tenant_token(settings, "acme", hours=1))
    assert (caller.role, caller.scopes) == (None, set(SCOPES))


async def test_scopes_make_less_of_a_role_and_never_more(settings: Settings) -> None:
    asked = ["runs:read", "graphs:write"]
    token = await tenant_token(settings, "acme", role="viewer", scopes=asked, hours=1)
    assert verify(signing_key(settings.state), token).scopes == {"runs:read"}


@pytest.mark.parametrize("given", [{"role": "root"}, {"scopes": ["all"]}])
async def test_what_there_is_not_makes_no_token(settings: Settings, given: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        await tenant_token(settings, "acme", hours=1, **given)  # pyright: ignore[reportArgumentType]
