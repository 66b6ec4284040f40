-- Where runs are executed, and where each tenant's may be.

-- NULL: what holds for all, the row of the tenant ''.
ALTER TABLE graphwright.tenants
    ADD COLUMN isolations text[] CHECK (isolations <@ '{warm,process,docker,kubernetes}'),
    ADD COLUMN placement  jsonb;                -- graph_defs/placement_policy.py says what is in it

UPDATE graphwright.tenants SET isolations = '{warm,process}', placement = '{}' WHERE tenant = '';

CREATE OR REPLACE VIEW graphwright.tenant_policies WITH (security_invoker = true) AS
SELECT t.tenant,
    COALESCE(t.weight, d.weight, 1) AS weight,
    COALESCE(t.max_running, d.max_running) AS max_running,
    COALESCE(t.max_queued, d.max_queued) AS max_queued,
    COALESCE(t.max_runs_per_day, d.max_runs_per_day) AS max_runs_per_day,
    COALESCE(t.max_graphs, d.max_graphs) AS max_graphs,
    COALESCE(t.retention_days, d.retention_days) AS retention_days,
    COALESCE(t.isolations, d.isolations, '{warm,process}') AS isolations,
    COALESCE(t.placement, d.placement, '{}') AS placement
FROM graphwright.tenants t JOIN graphwright.tenants d ON d.tenant = '';

ALTER TABLE graphwright.runs
    ADD COLUMN isolation    text NOT NULL DEFAULT 'warm',
    ADD COLUMN being_placed boolean NOT NULL DEFAULT false, -- its worker has it started elsewhere
    ADD COLUMN lost         boolean NOT NULL DEFAULT false; -- its worker was lost while it was under way

-- Two more states of a run on the queue, for what it waits:
--   unplaced   a worker that has room to place it
--   placed     the process that was started for it elsewhere
-- and `solo` is also what a run waits for that is to have a process of its own.

-- Runs that were started elsewhere, from the first placing to the run's end.
CREATE TABLE graphwright.placements (
    tenant     text COLLATE "C" NOT NULL,
    run_id     uuid PRIMARY KEY,
    isolation  text NOT NULL,
    attempt    integer NOT NULL,               -- counts the placings, from 1
    location   text NOT NULL,                  -- where it is, in its platform's words
    worker     uuid,                           -- who places it
    placed_at  timestamptz NOT NULL DEFAULT now(), -- it has to claim its run in a time from here
    look_at    timestamptz NOT NULL DEFAULT now(), -- the watcher does not look before
    removed    boolean NOT NULL DEFAULT false, -- nothing of this attempt is left on the platform
    failures   integer NOT NULL DEFAULT 0,     -- how often in a row the platform could not take it
    unexplained integer NOT NULL DEFAULT 0,    -- how many of these were no failures that pass
    reason     text                            -- what the platform said of the last one that was lost
);

-- Of no use to a tenant's own session: nothing is granted. Should something be one day, this holds.
ALTER TABLE graphwright.placements ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON graphwright.placements TO graphwright_tenant
    USING (tenant = NULLIF(current_setting('graphwright.tenant', true), ''));
