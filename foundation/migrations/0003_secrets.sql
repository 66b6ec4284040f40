-- Secrets of tenants, encrypted in an envelope: values by a tenant's data key, data keys by the
-- installation's master key, which is not in the database.

CREATE TABLE graphwright.data_keys (
    tenant         text COLLATE "C" NOT NULL,
    data_key_id    uuid NOT NULL,
    wrapped        bytea NOT NULL,
    master_key     text COLLATE "C" NOT NULL,  -- the id of the master key that wraps it
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, data_key_id)
);

CREATE INDEX data_keys_by_master ON graphwright.data_keys (master_key);

CREATE TABLE graphwright.secrets (
    tenant          text COLLATE "C" NOT NULL,
    name            text COLLATE "C" NOT NULL,
    data_key_id     uuid NOT NULL,
    value           bytea NOT NULL,            -- nonce and ciphertext
    previous_key_id uuid,
    previous        bytea,                     -- what it was before, good for signatures for a while
    previous_until  timestamptz,
    version         integer NOT NULL DEFAULT 1, -- counts changes
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    author          text NOT NULL,
    PRIMARY KEY (tenant, name)
);
