"""SQL of members, API keys and their sessions."""

from typing import Final, LiteralString

MEMBER_ROLE: Final[LiteralString] = """
SELECT role FROM graphwright.members WHERE tenant = %(tenant)s AND subject = %(subject)s
"""

MEMBERS: Final[LiteralString] = """
SELECT subject, role, created_at, created_by, updated_at FROM graphwright.members
WHERE tenant = %(tenant)s AND subject > %(after)s ORDER BY subject LIMIT %(limit)s
"""

# In one order, so that two who change members at once do not wait for each other.
LOCK_ADMINS: Final[LiteralString] = """
SELECT subject FROM graphwright.members WHERE tenant = %(tenant)s AND role = 'admin'
ORDER BY subject FOR UPDATE
"""

PUT_MEMBER: Final[LiteralString] = """
INSERT INTO graphwright.members AS m (tenant, subject, role, created_by)
VALUES (%(tenant)s, %(subject)s, %(role)s, %(author)s)
ON CONFLICT (tenant, subject) DO UPDATE SET role = EXCLUDED.role, updated_at = now()
RETURNING subject, role, created_at, created_by, updated_at, m.xmax = 0 AS is_new
"""

DELETE_MEMBER: Final[LiteralString] = """
DELETE FROM graphwright.members WHERE tenant = %(tenant)s AND subject = %(subject)s
RETURNING subject
"""

# What a giver's rights come from, locked until what he gives is committed.
LOCK_MEMBER: Final[LiteralString] = """
SELECT subject FROM graphwright.members
WHERE tenant = %(tenant)s AND subject = %(subject)s AND role = %(role)s FOR SHARE
"""

LOCK_GOOD_KEY: Final[LiteralString] = """
SELECT expires_at FROM graphwright.api_keys
WHERE tenant = %(tenant)s AND prefix = %(prefix)s AND revoked_at IS NULL
  AND (expires_at IS NULL OR expires_at > now())
FOR SHARE
"""

ADD_KEY: Final[LiteralString] = """
INSERT INTO graphwright.api_keys
       (tenant, token_id, prefix, hash, name, role, scopes, created_by, expires_at)
VALUES (%(tenant)s, %(token_id)s, %(prefix)s, %(hash)s, %(name)s, %(role)s, %(scopes)s, %(author)s,
        LEAST(%(expires_at)s::timestamptz, %(makers_end)s::timestamptz))
RETURNING token_id::text, name, prefix, role, scopes, created_at, created_by, last_used_at,
          expires_at, revoked_at
"""

KEY: Final[LiteralString] = """
SELECT token_id::text, name, prefix, role, scopes, created_at, created_by, last_used_at,
       expires_at, revoked_at
FROM graphwright.api_keys WHERE tenant = %(tenant)s AND token_id = %(token_id)s
"""

KEYS: Final[LiteralString] = """
SELECT token_id::text, name, prefix, role, scopes, created_at, created_by, last_used_at,
       expires_at, revoked_at
FROM graphwright.api_keys WHERE tenant = %(tenant)s AND token_id < %(before)s
ORDER BY token_id DESC LIMIT %(limit)s
"""

REVOKE_KEY: Final[LiteralString] = """
WITH key AS (
    UPDATE graphwright.api_keys SET revoked_at = COALESCE(revoked_at, now())
    WHERE tenant = %(tenant)s AND token_id = %(token_id)s RETURNING tenant, token_id
), ended AS (
    UPDATE graphwright.sessions s SET revoked_at = now(), reason = 'key_revoked'
    FROM key
    WHERE s.tenant = key.tenant AND s.token_id = key.token_id AND s.revoked_at IS NULL
)
SELECT token_id FROM key
"""

REVOKE_KEYS_OF: Final[LiteralString] = """
WITH RECURSIVE made AS (
    SELECT token_id, prefix FROM graphwright.api_keys
    WHERE tenant = %(tenant)s AND created_by = %(subject)s
    UNION
    SELECT k.token_id, k.prefix FROM made JOIN graphwright.api_keys k
        ON k.tenant = %(tenant)s AND k.created_by = 'key:' || made.prefix
), key AS (
    UPDATE graphwright.api_keys k SET revoked_at = now() FROM made
    WHERE k.tenant = %(tenant)s AND k.token_id = made.token_id AND k.revoked_at IS NULL
    RETURNING k.tenant, k.token_id
), ended AS (
    UPDATE graphwright.sessions s SET revoked_at = now(), reason = 'key_revoked'
    FROM key
    WHERE s.tenant = key.tenant AND s.token_id = key.token_id AND s.revoked_at IS NULL
)
SELECT token_id FROM key
"""

KEY_BY_PREFIX: Final[LiteralString] = """
SELECT tenant, token_id::text, hash, role, scopes, expires_at, revoked_at
FROM graphwright.api_keys WHERE prefix = %(prefix)s
"""

# Nothing where the key was revoked in the meantime.
OPEN_SESSION: Final[LiteralString] = """
WITH key AS (
    UPDATE graphwright.api_keys SET last_used_at = now()
    WHERE tenant = %(tenant)s AND token_id = %(token_id)s AND revoked_at IS NULL
    RETURNING tenant, token_id, expires_at
)
INSERT INTO graphwright.sessions (tenant, session_id, token_id, scopes, expires_at)
SELECT tenant, %(session_id)s, token_id, %(scopes)s,
       LEAST(now() + make_interval(secs => %(seconds)s), expires_at)
FROM key
RETURNING expires_at
"""

# Before LOCK_SESSION: whoever revokes the key locks it first, and then its sessions.
LOCK_KEY_OF_SESSION: Final[LiteralString] = """
SELECT token_id FROM graphwright.api_keys
WHERE tenant = %(tenant)s AND token_id = (
    SELECT token_id FROM graphwright.sessions
    WHERE tenant = %(tenant)s AND session_id = %(session_id)s
)
FOR NO KEY UPDATE
"""

LOCK_SESSION: Final[LiteralString] = """
SELECT s.generation, s.scopes AS asked, s.reason, s.expires_at <= now() AS is_over,
       COALESCE(s.revoked_at, k.revoked_at) AS revoked_at,
       k.token_id::text, k.prefix, k.role, k.scopes, k.expires_at
FROM graphwright.sessions s JOIN graphwright.api_keys k USING (tenant, token_id)
WHERE s.tenant = %(tenant)s AND s.session_id = %(session_id)s
FOR UPDATE OF s
"""

RENEW_SESSION: Final[LiteralString] = """
WITH session AS (
    UPDATE graphwright.sessions s
    SET generation = generation + 1, used_at = now(),
        expires_at = LEAST(now() + make_interval(secs => %(seconds)s), k.expires_at)
    FROM graphwright.api_keys k
    WHERE s.tenant = %(tenant)s AND s.session_id = %(session_id)s
      AND k.tenant = s.tenant AND k.token_id = s.token_id
    RETURNING s.tenant, s.token_id, s.expires_at
), key AS (
    UPDATE graphwright.api_keys k SET last_used_at = now()
    FROM session WHERE k.tenant = session.tenant AND k.token_id = session.token_id
)
SELECT expires_at FROM session
"""

END_SESSION: Final[LiteralString] = """
UPDATE graphwright.sessions SET revoked_at = now(), reason = %(reason)s
WHERE tenant = %(tenant)s AND session_id = %(session_id)s AND revoked_at IS NULL
"""

FORGET_SESSIONS: Final[LiteralString] = """
DELETE FROM graphwright.sessions WHERE (tenant, session_id) IN (
    SELECT tenant, session_id FROM graphwright.sessions WHERE expires_at < now()
    ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
"""
