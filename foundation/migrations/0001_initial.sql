-- Tenants, graphs, immutable versions, runs, the run queue, node outputs, workers.
--
-- Sized for a billion graphs in a million tenants: every big table is hash-partitioned by tenant and
-- every key starts with the tenant, so that a query touches one partition and one tenant's rows lie
-- together; ids are UUIDv7, so that inserts go to the right-hand edge of each index. Past one
-- database the same tenant hash picks the database (docs/storage.md).

-- Who owns graphs, and what its runs may take. The row of the tenant '' holds what is true of all
-- that have no value of their own; NULL there too means no bound.
CREATE TABLE graphwright.tenants (
    tenant            text COLLATE "C" PRIMARY KEY,
    created_at        timestamptz NOT NULL DEFAULT now(),
    weight            integer CHECK (weight BETWEEN 1 AND 1000), -- runs started a round; 1 if NULL
    max_running       integer CHECK (max_running >= 0),          -- runs under way at once
    max_queued        integer CHECK (max_queued >= 0),           -- runs on the queue
    max_runs_per_day  integer CHECK (max_runs_per_day >= 0),     -- runs accepted a day, in UTC
    max_graphs        integer CHECK (max_graphs >= 0),           -- graphs stored
    retention_days    integer CHECK (retention_days >= 1)        -- how long runs are kept after their end
);

INSERT INTO graphwright.tenants (tenant) VALUES ('');

CREATE VIEW graphwright.tenant_policies AS
SELECT t.tenant,
    COALESCE(t.weight, d.weight, 1) AS weight,
    COALESCE(t.max_running, d.max_running) AS max_running,
    COALESCE(t.max_queued, d.max_queued) AS max_queued,
    COALESCE(t.max_runs_per_day, d.max_runs_per_day) AS max_runs_per_day,
    COALESCE(t.max_graphs, d.max_graphs) AS max_graphs,
    COALESCE(t.retention_days, d.retention_days) AS retention_days
FROM graphwright.tenants t JOIN graphwright.tenants d ON d.tenant = '';

-- Only of tenants that have a daily quota.
CREATE TABLE graphwright.tenant_days (
    tenant  text COLLATE "C" NOT NULL,
    day     date NOT NULL,
    runs    integer NOT NULL,
    PRIMARY KEY (tenant, day)
);

CREATE TABLE graphwright.graphs (
    tenant      text COLLATE "C" NOT NULL,
    graph_id    uuid NOT NULL,
    name        text COLLATE "C" NOT NULL,
    version     integer NOT NULL,              -- the published one; 0: none is
    description text NOT NULL DEFAULT '',
    labels      jsonb NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    pinned      boolean NOT NULL DEFAULT false, -- always in the workspace window
    paused      boolean NOT NULL DEFAULT false, -- its runs stay queued
    deleted_at  timestamptz,                   -- its runs still have its name, which is free again
    PRIMARY KEY (tenant, graph_id),
    CHECK (deleted_at IS NULL OR version = 0)
) PARTITION BY HASH (tenant);

CREATE UNIQUE INDEX graphs_by_name ON graphwright.graphs (tenant, name) WHERE deleted_at IS NULL;

-- The labels of published versions, for lists that ask for them.
CREATE TABLE graphwright.graph_labels (
    tenant    text COLLATE "C" NOT NULL,
    label     text COLLATE "C" NOT NULL,       -- name:value
    graph_id  uuid NOT NULL,
    PRIMARY KEY (tenant, label, graph_id)
) PARTITION BY HASH (tenant);

-- What is not published yet: at most one document a graph, which may have faults.
CREATE TABLE graphwright.graph_drafts (
    tenant       text COLLATE "C" NOT NULL,
    graph_id     uuid NOT NULL,
    fingerprint  bytea NOT NULL,               -- SHA-256 of the document
    document     text COMPRESSION pglz NOT NULL,  -- RFC 8785 JSON, as given
    author       text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, graph_id)
) PARTITION BY HASH (tenant);

CREATE TABLE graphwright.graph_versions (
    tenant            text COLLATE "C" NOT NULL,
    graph_version_id  uuid NOT NULL,
    graph_id          uuid NOT NULL,
    version           integer NOT NULL,         -- counts from 1 within its graph
    fingerprint       bytea NOT NULL,           -- SHA-256 of the document
    document          text COMPRESSION pglz NOT NULL,  -- RFC 8785 JSON, as given
    node_types        jsonb NOT NULL,           -- {node type: its version when this was published}
    author            text NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, graph_version_id),
    UNIQUE (tenant, graph_id, version),
    UNIQUE (tenant, graph_id, fingerprint)
) PARTITION BY HASH (tenant);

-- The list of runs, the fence against workers that lost a run, and the wall between tenants:
-- Dagster's events are read only through a row of this table.
CREATE TABLE graphwright.runs (
    tenant            text COLLATE "C" NOT NULL,
    run_id            uuid NOT NULL,
    sort_id           uuid NOT NULL,            -- UUIDv7: lists go by it, for the Dagster UI's run ids are random
    graph_id          uuid NOT NULL,
    graph_version_id  uuid NOT NULL,
    parent_run_id     uuid,
    trigger           json NOT NULL,            -- {"type": "rest" | "dagster" | …}
    params            json NOT NULL,            -- json, not jsonb: that refuses \u0000 and changes numbers
    status            text NOT NULL,            -- interface: queued … cancelled
    author            text NOT NULL,
    priority          integer NOT NULL DEFAULT 0,
    not_before        timestamptz,
    live              boolean NOT NULL DEFAULT true,
    created_at        timestamptz NOT NULL DEFAULT now(),
    started_at        timestamptz,
    ended_at          timestamptz,
    worker            uuid,
    epoch             integer NOT NULL DEFAULT 0,  -- counts claims and losses; every write checks it
    strikes           smallint NOT NULL DEFAULT 0, -- leases lost in a row without a node completed
    nodes_done        integer NOT NULL DEFAULT 0,  -- nodes completed when a lease was last lost
    slot              text,                        -- what it shares with runs that it may not run beside
    slot_limit        integer,                     -- how many may hold that at once
    limited           boolean NOT NULL DEFAULT false, -- it takes slots, so its end may let others start
    pausing           boolean NOT NULL DEFAULT false, -- its worker was asked to leave it paused
    rests             boolean NOT NULL DEFAULT false, -- paused when all that was under way waited
    last_event_id     bigint NOT NULL DEFAULT 0,   -- the newest of this run's events that a client can see
    outputs           json,
    error             json,
    -- What lists ask for. Policies come before what a query asks for unless that cannot leak, as
    -- `->>` might, so an index on `error ->> 'code'` is no use to a tenant's own session.
    error_code        text GENERATED ALWAYS AS (error ->> 'code') STORED
) PARTITION BY HASH (tenant);

CREATE INDEX runs_by_age ON graphwright.runs (tenant, sort_id);
CREATE INDEX runs_of_graph ON graphwright.runs (tenant, graph_id, sort_id);
CREATE INDEX runs_by_status ON graphwright.runs (tenant, status, sort_id);
-- Which runs have news since an event, for streams of many runs.
CREATE INDEX runs_by_event ON graphwright.runs (tenant, last_event_id);
-- Runs that failed, by why.
CREATE INDEX runs_by_error ON graphwright.runs (tenant, error_code, sort_id)
    WHERE error_code IS NOT NULL;
-- What a worker held when it died.
CREATE INDEX runs_held ON graphwright.runs (worker) WHERE worker IS NOT NULL AND ended_at IS NULL;
-- Of indexes that look equally good, as all do on an empty table, PostgreSQL takes the newest, and a
-- prepared statement keeps to it until the table is first analyzed. So this one comes last.
ALTER TABLE graphwright.runs ADD PRIMARY KEY (tenant, run_id);

-- Thin: a row lives from the trigger to the claim. `state` says what the run waits for:
--   ready      a worker
--   delayed    its time, `not_before`
--   blocked    a place in its `slot`, then
--   limited    a place among its tenant's running runs
--   held       its graph to be resumed
--   solo       a worker of its own, since it was lost too often
--   launching  the second half of its launch from the Dagster UI
CREATE TABLE graphwright.run_queue (
    run_id      uuid PRIMARY KEY,
    tenant      text COLLATE "C" NOT NULL,
    graph_id    uuid NOT NULL,
    state       text COLLATE "C" NOT NULL,
    priority    integer NOT NULL DEFAULT 0,
    not_before  timestamptz NOT NULL DEFAULT now(),
    waited      boolean NOT NULL DEFAULT false, -- it left its worker because it only waited
    admitted    boolean NOT NULL DEFAULT false, -- it has its places already
    slot        text,
    slot_limit  integer,
    limited     boolean NOT NULL DEFAULT false  -- its tenant's running runs are limited
);

CREATE INDEX run_queue_order ON graphwright.run_queue (state, tenant, priority DESC, not_before, run_id);
CREATE INDEX run_queue_due ON graphwright.run_queue (not_before) WHERE state = 'delayed';
CREATE INDEX run_queue_held ON graphwright.run_queue (graph_id) WHERE state = 'held';
CREATE INDEX run_queue_blocked ON graphwright.run_queue (tenant, slot, priority DESC, not_before, run_id)
    WHERE state = 'blocked';

-- Places that runs hold from when they may start to their end; '' is the slot of the tenant itself.
-- A place of a run that has ended, or is gone, is free: rows are only cleaned away when somebody asks.
CREATE TABLE graphwright.run_slots (
    tenant  text COLLATE "C" NOT NULL,
    slot    text NOT NULL,
    run_id  uuid NOT NULL,
    PRIMARY KEY (tenant, slot, run_id)
);

-- Triggers that were sent with an Idempotency-Key: sent again, they are the same run.
CREATE TABLE graphwright.idempotency_keys (
    tenant      text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    run_id      uuid NOT NULL,
    request     text NOT NULL,                 -- a digest of what was asked for
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant, key)
) PARTITION BY HASH (tenant);

CREATE INDEX idempotency_keys_expired ON graphwright.idempotency_keys (expires_at);

-- One row per node of a run that has completed: its output, or where in the object store that is.
CREATE TABLE graphwright.node_outputs (
    tenant      text COLLATE "C" NOT NULL,
    run_id      uuid NOT NULL,
    node        text COLLATE "C" NOT NULL,
    value       text COMPRESSION pglz,          -- JSON, kept as text: jsonb would change numbers
    object_key  text COLLATE "C",               -- a re-run may name an object of its parent
    bytes       bigint,                         -- of the object
    PRIMARY KEY (tenant, run_id, node),
    CHECK ((value IS NULL) = (object_key IS NOT NULL)),
    CHECK ((bytes IS NULL) = (object_key IS NULL))
) PARTITION BY HASH (tenant);

-- Whether an object is still named by anyone, before it is deleted.
CREATE INDEX node_outputs_objects ON graphwright.node_outputs (tenant, object_key)
    WHERE object_key IS NOT NULL;

-- A re-run that has not ended may yet take over what its parent made.
CREATE INDEX runs_repeating ON graphwright.runs (tenant, parent_run_id)
    WHERE parent_run_id IS NOT NULL AND ended_at IS NULL;

-- How far retention has come on its walk over the runs; who has the row locked may remove.
CREATE TABLE graphwright.retention (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    tenant   text COLLATE "C" NOT NULL DEFAULT '',
    sort_id  uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    next_at  timestamptz NOT NULL DEFAULT now()
);

INSERT INTO graphwright.retention DEFAULT VALUES;

-- Objects that an output was which is gone, or a run's folder of them, ending in `/`. They are deleted
-- after it, unless others name them.
CREATE TABLE graphwright.left_objects (
    tenant      text COLLATE "C" NOT NULL,
    object_key  text COLLATE "C" NOT NULL,
    left_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, object_key)
);

-- Unlogged: it says who is there just now, and changes each time that a worker runs out of work. A
-- lease holds as long as `seen_at` of its worker is recent enough.
CREATE UNLOGGED TABLE graphwright.workers (
    worker      uuid PRIMARY KEY,
    host        text NOT NULL,
    pid         integer NOT NULL,
    pool        integer NOT NULL,               -- the process that keeps it, on its host
    draining    boolean NOT NULL DEFAULT false, -- it was asked to take no more work
    started_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now(),
    idle        boolean NOT NULL DEFAULT false
);

DO $$
BEGIN
    FOR part IN 0..15 LOOP
        EXECUTE format('CREATE TABLE graphwright.graphs_%s PARTITION OF graphwright.graphs FOR VALUES WITH (MODULUS 16, REMAINDER %s)', part, part);
        EXECUTE format('CREATE TABLE graphwright.graph_labels_%s PARTITION OF graphwright.graph_labels FOR VALUES WITH (MODULUS 16, REMAINDER %s)', part, part);
        EXECUTE format('CREATE TABLE graphwright.graph_drafts_%s PARTITION OF graphwright.graph_drafts FOR VALUES WITH (MODULUS 16, REMAINDER %s)', part, part);
        EXECUTE format('CREATE TABLE graphwright.graph_versions_%s PARTITION OF graphwright.graph_versions FOR VALUES WITH (MODULUS 16, REMAINDER %s)', part, part);
        EXECUTE format('CREATE TABLE graphwright.runs_%s PARTITION OF graphwright.runs FOR VALUES WITH (MODULUS 16, REMAINDER %s)', part, part);
        EXECUTE format('CREATE TABLE graphwright.idempotency_keys_%s PARTITION OF graphwright.idempotency_keys FOR VALUES WITH (MODULUS 16, REMAINDER %s)', part, part);
        EXECUTE format('CREATE TABLE graphwright.node_outputs_%s PARTITION OF graphwright.node_outputs FOR VALUES WITH (MODULUS 16, REMAINDER %s)', part, part);
    END LOOP;
END $$;

-- The workspace window asks for the graphs that changed or ran last, whoever owns them.
CREATE TABLE graphwright.recent_graphs (
    graph_id  uuid PRIMARY KEY,
    tenant    text COLLATE "C" NOT NULL,
    used_at   timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX recent_graphs_order ON graphwright.recent_graphs (used_at DESC);
