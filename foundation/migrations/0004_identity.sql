-- Who may do what in a tenant, and who did: members, API keys and their sessions, the audit log.

CREATE TABLE graphwright.members (
    tenant      text COLLATE "C" NOT NULL,
    subject     text COLLATE "C" NOT NULL,     -- of a token of the OIDC provider
    role        text COLLATE "C" NOT NULL CHECK (role IN ('viewer', 'operator', 'editor', 'admin')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    created_by  text NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, subject)
);

-- Found by its prefix, which is no secret, before the tenant is known.
CREATE TABLE graphwright.api_keys (
    tenant        text COLLATE "C" NOT NULL,
    token_id      uuid NOT NULL,               -- UUIDv7
    prefix        text COLLATE "C" NOT NULL UNIQUE,
    hash          text NOT NULL,               -- argon2id
    name          text NOT NULL,
    role          text COLLATE "C" NOT NULL CHECK (role IN ('viewer', 'operator', 'editor', 'admin')),
    scopes        text[],                      -- NULL: all of its role, whatever that comes to be
    created_at    timestamptz NOT NULL DEFAULT now(),
    created_by    text NOT NULL,
    last_used_at  timestamptz,
    expires_at    timestamptz,
    revoked_at    timestamptz,
    PRIMARY KEY (tenant, token_id)
);

CREATE INDEX api_keys_of_maker ON graphwright.api_keys (tenant, created_by);

-- What one login has led to. Its refresh tokens are signed and counted: only the newest is good, and
-- an older one ends the session.
CREATE TABLE graphwright.sessions (
    tenant      text COLLATE "C" NOT NULL,
    session_id  uuid NOT NULL,                 -- UUIDv7
    token_id    uuid NOT NULL,                 -- the API key that logged in
    scopes      text[],                        -- asked for at the login; NULL: all of the key
    generation  integer NOT NULL DEFAULT 0,    -- of the newest refresh token
    created_at  timestamptz NOT NULL DEFAULT now(),
    used_at     timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    revoked_at  timestamptz,
    reason      text,                          -- logout | reused | key_revoked
    PRIMARY KEY (tenant, session_id)
);

CREATE INDEX sessions_of_key ON graphwright.sessions (tenant, token_id);
CREATE INDEX sessions_expired ON graphwright.sessions (expires_at);

-- Append-only.
CREATE TABLE graphwright.audit (
    tenant      text COLLATE "C" NOT NULL,
    audit_id    uuid NOT NULL,                 -- UUIDv7
    at          timestamptz NOT NULL DEFAULT now(),
    subject     text NOT NULL,
    role        text,
    token_id    text NOT NULL,                 -- the token's jti
    action      text COLLATE "C" NOT NULL,     -- the operation: graphs.publish
    target      json NOT NULL,                 -- the path's parameters
    status      smallint NOT NULL,             -- of the answer
    address     text,
    request_id  text NOT NULL,
    user_agent  text,
    PRIMARY KEY (tenant, audit_id)
) PARTITION BY HASH (tenant);

CREATE INDEX audit_of_subject ON graphwright.audit (tenant, subject, audit_id);
CREATE INDEX audit_of_action ON graphwright.audit (tenant, action, audit_id);

DO $$
BEGIN
    FOR part IN 0..15 LOOP
        EXECUTE format('CREATE TABLE graphwright.audit_%s PARTITION OF graphwright.audit FOR VALUES WITH (MODULUS 16, REMAINDER %s)', part, part);
    END LOOP;
END $$;

CREATE FUNCTION graphwright.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only';
END $$;

CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE ON graphwright.audit
    FOR EACH ROW EXECUTE FUNCTION graphwright.refuse_change();
CREATE TRIGGER audit_is_not_emptied BEFORE TRUNCATE ON graphwright.audit
    FOR EACH STATEMENT EXECUTE FUNCTION graphwright.refuse_change();

-- Partitions have the row trigger of their whole, but not the one of the statement.
DO $$
BEGIN
    FOR part IN 0..15 LOOP
        EXECUTE format('CREATE TRIGGER audit_is_not_emptied BEFORE TRUNCATE ON graphwright.audit_%s FOR EACH STATEMENT EXECUTE FUNCTION graphwright.refuse_change()', part);
    END LOOP;
END $$;
