-- Tenants, graphs, immutable versions, runs, the run queue, node outputs, workers.
--
-- Sized for a billion graphs in a million tenants: every big table is hash-partitioned by tenant and
-- every key starts with the tenant, so that a query touches one partition and one tenant's rows lie
-- together; ids are UUIDv7, so that inserts go to the right-hand edge of each index. Past one
-- database the same tenant hash picks the database (docs/storage.md).

CREATE TABLE graphwright.tenants (
    tenant      text COLLATE "C" PRIMARY KEY,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE graphwright.graphs (
    tenant      text COLLATE "C" NOT NULL,
    graph_id    uuid NOT NULL,
    name        text COLLATE "C" NOT NULL,
    version     integer NOT NULL,              -- the published one
    description text NOT NULL DEFAULT '',
    labels      jsonb NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    pinned      boolean NOT NULL DEFAULT false, -- always in the workspace window
    PRIMARY KEY (tenant, graph_id),
    UNIQUE (tenant, name)
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
    epoch             integer NOT NULL DEFAULT 0,  -- counts the claims; every write of a run checks it
    last_event_id     bigint NOT NULL DEFAULT 0,   -- the newest of this run's events that a client can see
    outputs           json,
    error             json
) PARTITION BY HASH (tenant);

CREATE INDEX runs_by_age ON graphwright.runs (tenant, sort_id);
CREATE INDEX runs_of_graph ON graphwright.runs (tenant, graph_id, sort_id);
CREATE INDEX runs_by_status ON graphwright.runs (tenant, status, sort_id);
-- Of indexes that look equally good, as all do on an empty table, PostgreSQL takes the newest, and a
-- prepared statement keeps to it until the table is first analyzed. So this one comes last.
ALTER TABLE graphwright.runs ADD PRIMARY KEY (tenant, run_id);

-- Thin: a row lives from the trigger to the claim.
CREATE TABLE graphwright.run_queue (
    run_id      uuid PRIMARY KEY,
    tenant      text COLLATE "C" NOT NULL,
    priority    integer NOT NULL DEFAULT 0,
    not_before  timestamptz NOT NULL DEFAULT now(),
    waited      boolean NOT NULL DEFAULT false  -- it left its worker because it only waited
);

CREATE INDEX run_queue_due ON graphwright.run_queue (not_before);
CREATE INDEX run_queue_order ON graphwright.run_queue (priority DESC, not_before, run_id);

-- One row per node of a run that has completed; `value` is its output.
CREATE TABLE graphwright.node_outputs (
    tenant  text COLLATE "C" NOT NULL,
    run_id  uuid NOT NULL,
    node    text COLLATE "C" NOT NULL,
    value   text COMPRESSION pglz NOT NULL,       -- JSON, kept as text: jsonb would change numbers
    PRIMARY KEY (tenant, run_id, node)
) PARTITION BY HASH (tenant);

-- Unlogged: it says who is there just now, and changes each time that a worker runs out of work.
CREATE UNLOGGED TABLE graphwright.workers (
    worker      uuid PRIMARY KEY,
    host        text NOT NULL,
    pid         integer NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now(),
    idle        boolean NOT NULL DEFAULT false
);

DO $$
BEGIN
    FOR part IN 0..15 LOOP
        EXECUTE format('CREATE TABLE graphwright.graphs_%s PARTITION OF graphwright.graphs FOR VALUES WITH (MODULUS 16, REMAINDER %s)', part, part);
        EXECUTE format('CREATE TABLE graphwright.graph_versions_%s PARTITION OF graphwright.graph_versions FOR VALUES WITH (MODULUS 16, REMAINDER %s)', part, part);
        EXECUTE format('CREATE TABLE graphwright.runs_%s PARTITION OF graphwright.runs FOR VALUES WITH (MODULUS 16, REMAINDER %s)', part, part);
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
