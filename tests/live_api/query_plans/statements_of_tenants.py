"""What the calls do not send of statements about a tenant's people, keys and secrets."""

from dataclasses import replace
from typing import Any

from foundation.ids import new_id
from foundation.secret_store import statements as secrets
from graph_defs import tenants
from live_api import audit_log
from live_api.identity import statements as identity
from live_api.tenants import USAGE
from tests.live_api.query_plans.recording import Sent
from tests.live_api.query_plans.volume import TENANT


def sent_for_tenants() -> list[Sent]:
    """What tenants are, may and have used, with fitting values."""
    return [
        Sent(tenants.READ, (TENANT,)),
        Sent(tenants.EFFECTIVE, (TENANT,)),
        Sent(tenants.LIST, ("", 10)),
        Sent(tenants.WRITE, {"tenant": TENANT, **dict.fromkeys(tenants.POLICY_FIELDS)}),
        *(replace(each, tenant=TENANT) for each in _sent_for_secrets()),
        *(replace(each, tenant=TENANT) for each in _sent_for_identity()),
        *_sent_by_sessions(),
        *_sent_by_rotation(),
    ]


def _sent_for_identity() -> list[Sent]:
    key = {"tenant": TENANT, "token_id": new_id(), "prefix": "abcd1234"}
    member = {"tenant": TENANT, "subject": "ann", "role": "viewer", "author": "ann"}
    new_key = dict.fromkeys(("hash", "name", "author"), "x") | dict.fromkeys(
        ("scopes", "expires_at", "makers_end")
    )
    page = {"tenant": TENANT, "before": new_id(), "after": "ann", "limit": 50}
    entries = {**page, "since": new_id(), "subject": "ann", "action": "graphs.publish"}
    return [
        Sent(identity.MEMBER_ROLE, member),
        Sent(identity.MEMBERS, page),
        Sent(identity.LOCK_ADMINS, member),
        Sent(identity.PUT_MEMBER, member),
        Sent(identity.DELETE_MEMBER, member),
        Sent(identity.LOCK_MEMBER, member),
        Sent(identity.LOCK_GOOD_KEY, key),
        Sent(identity.ADD_KEY, {**key, **new_key, "role": "viewer"}),
        Sent(identity.KEY, key),
        Sent(identity.KEYS, page),
        Sent(identity.REVOKE_KEY, key),
        Sent(identity.REVOKE_KEYS_OF, member),
        Sent(audit_log.ENTRIES, entries),
        Sent(audit_log.ENTRIES_OF_SUBJECT, entries),
        Sent(audit_log.ENTRIES_OF_ACTION, entries),
        Sent(audit_log.ENTRIES_OF_BOTH, entries),
        Sent(USAGE, {"tenant": TENANT, "today": new_id()}),
    ]


def _sent_by_sessions() -> list[Sent]:
    """What is asked before the tenant is known, and for many tenants at once."""
    session: dict[str, Any] = {"tenant": TENANT, "session_id": new_id(), "token_id": new_id()}
    return [
        Sent(identity.KEY_BY_PREFIX, {"prefix": "abcd1234"}),
        Sent(identity.OPEN_SESSION, {**session, "scopes": None, "seconds": 60}),
        Sent(identity.LOCK_KEY_OF_SESSION, session),
        Sent(identity.LOCK_SESSION, session),
        Sent(identity.RENEW_SESSION, {**session, "seconds": 60}),
        Sent(identity.END_SESSION, {**session, "reason": "logout"}),
        Sent(identity.FORGET_SESSIONS, {"limit": 100}),
        Sent(audit_log.WRITE, {"entries": "[]"}),
    ]


def _sent_for_secrets() -> list[Sent]:
    secret = {"tenant": TENANT, "name": "key", "names": ["key"]}
    key = {"tenant": TENANT, "data_key_id": new_id(), "wrapped": b"", "master_key": "first"}
    return [
        Sent(secrets.GET, secret),
        Sent(secrets.LIST, {"tenant": TENANT, "after": "a", "limit": 50}),
        Sent(secrets.VALUES, secret),
        Sent(secrets.LOCKED_VALUE, secret),
        Sent(
            secrets.PUT,
            {**secret, "data_key_id": new_id(), "value": b"", "author": "ann", "keep": 0},
        ),
        Sent(secrets.DROP_PREVIOUS, secret),
        Sent(secrets.DELETE, secret),
        Sent(secrets.DATA_KEY, secret),
        Sent(secrets.ADD_DATA_KEY, key),
        Sent(secrets.MASTER_KEYS, None),
        Sent(secrets.WRAPPING, None),
    ]


def _sent_by_rotation() -> list[Sent]:
    key = {"tenant": TENANT, "data_key_id": new_id(), "current": "second", "limit": 100}
    columns = {
        **{"tenants": [TENANT], "ids": [new_id()]},
        **{"wrapped": [b""], "master_keys": ["second"]},
    }
    return [
        Sent(secrets.NO_WRAPPING, None),
        Sent(secrets.BEGIN_ROTATION, None),
        Sent(secrets.END_ROTATION, None),
        Sent(secrets.TO_REWRAP, key),
        Sent(secrets.REWRAP, columns),
    ]
