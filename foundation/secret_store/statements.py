"""The store's SQL. Values and keys are parameters, and only ever encrypted ones."""

from typing import Final, LiteralString

_INFO: Final[LiteralString] = """
name, version, created_at, updated_at, author,
CASE WHEN previous_until > now() THEN previous_until END AS previous_until
"""

GET: Final[LiteralString] = f"""
SELECT {_INFO} FROM graphwright.secrets WHERE tenant = %(tenant)s AND name = %(name)s
"""  # noqa: S608 - made of constants

LIST: Final[LiteralString] = f"""
SELECT {_INFO} FROM graphwright.secrets
WHERE tenant = %(tenant)s AND name > %(after)s ORDER BY name LIMIT %(limit)s
"""  # noqa: S608

VALUES: Final[LiteralString] = """
SELECT
    s.name, s.value, s.data_key_id::text, k.wrapped, k.master_key,
    extract(epoch FROM s.previous_until - now())::float8 AS previous_seconds,
    s.previous, s.previous_key_id::text,
    p.wrapped AS previous_wrapped, p.master_key AS previous_master_key
FROM graphwright.secrets s
JOIN graphwright.data_keys k ON k.tenant = s.tenant AND k.data_key_id = s.data_key_id
LEFT JOIN graphwright.data_keys p
    ON p.tenant = s.tenant AND p.data_key_id = s.previous_key_id AND s.previous_until > now()
WHERE s.tenant = %(tenant)s AND s.name = ANY(%(names)s)
"""

LOCKED_VALUE: Final[LiteralString] = VALUES + "FOR UPDATE OF s\n"

PUT: Final[LiteralString] = f"""
INSERT INTO graphwright.secrets AS s (tenant, name, data_key_id, value, author)
VALUES (%(tenant)s, %(name)s, %(data_key_id)s, %(value)s, %(author)s)
ON CONFLICT (tenant, name) DO UPDATE SET
    data_key_id = excluded.data_key_id,
    value = excluded.value,
    author = excluded.author,
    version = s.version + 1,
    updated_at = now(),
    previous = CASE WHEN %(keep)s::float8 > 0 THEN s.value END,
    previous_key_id = CASE WHEN %(keep)s::float8 > 0 THEN s.data_key_id END,
    previous_until = CASE
        WHEN %(keep)s::float8 > 0 THEN now() + %(keep)s::float8 * interval '1 second'
    END
RETURNING {_INFO}
"""  # noqa: S608

DROP_PREVIOUS: Final[LiteralString] = f"""
UPDATE graphwright.secrets SET previous = NULL, previous_key_id = NULL, previous_until = NULL
WHERE tenant = %(tenant)s AND name = %(name)s
RETURNING {_INFO}
"""  # noqa: S608

DELETE: Final[LiteralString] = """
DELETE FROM graphwright.secrets WHERE tenant = %(tenant)s AND name = %(name)s RETURNING name
"""

# Two processes that make a tenant's first key at once leave two. Both stay good; all use the older.
DATA_KEY: Final[LiteralString] = """
SELECT data_key_id::text, wrapped, master_key FROM graphwright.data_keys
WHERE tenant = %(tenant)s ORDER BY data_key_id LIMIT 1
"""

ADD_DATA_KEY: Final[LiteralString] = """
INSERT INTO graphwright.data_keys (tenant, data_key_id, wrapped, master_key)
VALUES (%(tenant)s, %(data_key_id)s, %(wrapped)s, %(master_key)s)
"""

# Of the master keys in use, for whichever tenant, the first and the last by their ids.
MASTER_KEYS: Final[LiteralString] = """
SELECT first, last FROM graphwright.master_keys_in_use()
"""

# "gwsk" and "gwsr": any numbers that no one else locks in this database.
WRAPPING: Final[LiteralString] = "SELECT pg_advisory_xact_lock_shared(1735881579)"
NO_WRAPPING: Final[LiteralString] = "SELECT pg_advisory_xact_lock(1735881579)"
BEGIN_ROTATION: Final[LiteralString] = "SELECT pg_try_advisory_lock(1735881586) AS locked"
END_ROTATION: Final[LiteralString] = "SELECT pg_advisory_unlock(1735881586)"

TO_REWRAP: Final[LiteralString] = """
SELECT tenant, data_key_id::text, wrapped, master_key FROM graphwright.data_keys
WHERE (tenant, data_key_id) > (%(tenant)s, %(data_key_id)s::uuid) AND master_key <> %(current)s
ORDER BY tenant, data_key_id LIMIT %(limit)s
"""

REWRAP: Final[LiteralString] = """
UPDATE graphwright.data_keys k SET wrapped = n.wrapped, master_key = n.master_key
FROM unnest(%(tenants)s::text[], %(ids)s::uuid[], %(wrapped)s::bytea[], %(master_keys)s::text[])
    AS n (tenant, data_key_id, wrapped, master_key)
WHERE k.tenant = n.tenant AND k.data_key_id = n.data_key_id
"""
