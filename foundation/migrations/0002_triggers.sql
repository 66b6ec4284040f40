-- What starts runs by itself: webhooks with their inbox, timers, and what the end of a run sets off.
--
-- The queues (delivery_queue, timers, notices) are thin and asked for all tenants at once, so they
-- are not partitioned. A `slice` is a fixed part of the tenants; a shard is a set of slices.

-- The triggers of the published versions, by their names.
CREATE TABLE graphwright.triggers (
    tenant      text COLLATE "C" NOT NULL,
    trigger_id  uuid NOT NULL,
    graph_id    uuid NOT NULL,
    name        text COLLATE "C" NOT NULL,
    type        text COLLATE "C" NOT NULL,     -- webhook | timer
    config      json NOT NULL,                 -- as the document has it
    address     text COLLATE "C",              -- of a webhook: the last part of its URL
    enabled     boolean NOT NULL DEFAULT true,
    last_fault  text,                          -- why it last started no run though it should have
    last_fault_at timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, trigger_id),
    UNIQUE (tenant, graph_id, name)
) PARTITION BY HASH (tenant);

-- Whose a webhook's address is: 128 random bits, which nobody guesses.
CREATE TABLE graphwright.webhook_addresses (
    address     text COLLATE "C" PRIMARY KEY,
    tenant      text COLLATE "C" NOT NULL,
    trigger_id  uuid NOT NULL
);

-- The inbox: each call of a webhook. `verdict` says what came of it:
--   pending   it waits to be dispatched
--   started   `run_id` is its run
--   filtered  the trigger's filter does not want it
--   rejected  it cannot become a run, for the `reason`
--   refused   it did not prove who sent it; such calls are kept without a body, a few of each trigger
CREATE TABLE graphwright.deliveries (
    tenant         text COLLATE "C" NOT NULL,
    delivery_id    uuid NOT NULL,              -- UUIDv7
    trigger_id     uuid NOT NULL,
    graph_id       uuid NOT NULL,
    received_at    timestamptz NOT NULL,
    sender_id      text,                       -- the sender's own id of it
    headers        json NOT NULL,              -- names in lower case; those that prove are left out
    query          json NOT NULL,
    body           bytea,
    verdict        text COLLATE "C" NOT NULL DEFAULT 'pending',
    reason         text,
    run_id         uuid,
    decided_at     timestamptz,
    redelivery_of  uuid
) PARTITION BY HASH (tenant);

CREATE INDEX deliveries_of_trigger ON graphwright.deliveries (tenant, trigger_id, delivery_id);
CREATE INDEX deliveries_of_graph ON graphwright.deliveries (tenant, graph_id, delivery_id);
CREATE INDEX deliveries_by_verdict ON graphwright.deliveries (tenant, verdict, delivery_id);
-- They go sooner than others.
CREATE INDEX deliveries_refused ON graphwright.deliveries (received_at) WHERE verdict = 'refused';
-- As in 0001: the newest of equal indexes is taken.
ALTER TABLE graphwright.deliveries ADD PRIMARY KEY (tenant, delivery_id);

-- By what a repeated call is known.
CREATE TABLE graphwright.delivery_keys (
    tenant       text COLLATE "C" NOT NULL,
    trigger_id   uuid NOT NULL,
    key          text COLLATE "C" NOT NULL,
    delivery_id  uuid NOT NULL,
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant, trigger_id, key)
) PARTITION BY HASH (tenant);

CREATE INDEX delivery_keys_expired ON graphwright.delivery_keys (expires_at);

-- Thin: a row lives from a delivery's arrival to its verdict.
CREATE TABLE graphwright.delivery_queue (
    delivery_id  uuid PRIMARY KEY,
    tenant       text COLLATE "C" NOT NULL,
    slice        smallint GENERATED ALWAYS AS ((hashtextextended(tenant, 0) & 63)::smallint) STORED,
    not_before   timestamptz NOT NULL DEFAULT now(),
    costly       boolean NOT NULL DEFAULT false  -- its expressions take long: it must not hold others up
);

CREATE INDEX delivery_queue_order ON graphwright.delivery_queue (costly, not_before, delivery_id);
CREATE INDEX delivery_queue_of_tenant ON graphwright.delivery_queue (tenant, not_before);

-- Enabled timers with a due time to come. A run starts at `fire_at`, which is `due_at` with jitter.
CREATE TABLE graphwright.timers (
    trigger_id  uuid PRIMARY KEY,
    tenant      text COLLATE "C" NOT NULL,
    slice       smallint GENERATED ALWAYS AS ((hashtextextended(tenant, 0) & 63)::smallint) STORED,
    due_at      timestamptz NOT NULL,
    fire_at     timestamptz NOT NULL,
    lane        text COLLATE "C" NOT NULL DEFAULT 'quick' -- quick | behind (catches up) | costly (as in delivery_queue)
);

CREATE INDEX timers_due ON graphwright.timers (lane, fire_at);
CREATE INDEX timers_behind ON graphwright.timers (tenant, fire_at) WHERE lane = 'behind';

-- A graph run once for each due time of a past range. Rare, so neither partitioned nor thin.
CREATE TABLE graphwright.backfills (
    tenant       text COLLATE "C" NOT NULL,
    backfill_id  uuid NOT NULL,
    trigger_id   uuid NOT NULL,
    graph_id     uuid NOT NULL,
    name         text COLLATE "C" NOT NULL,    -- of the timer
    config       json NOT NULL,                -- of the timer, when it was asked for
    from_at      timestamptz NOT NULL,
    to_at        timestamptz NOT NULL,         -- not included
    next_at      timestamptz NOT NULL,         -- due times before this have their runs
    not_before   timestamptz,                  -- a run was refused for now: when it is tried again
    max_running  integer NOT NULL,
    total        integer NOT NULL,
    made         integer NOT NULL DEFAULT 0,   -- due times that have a run
    refused      integer NOT NULL DEFAULT 0,   -- due times that can have none, the last for the `reason`
    status       text COLLATE "C" NOT NULL DEFAULT 'running', -- running | cancelling | cancelled | failed | succeeded
    reason       text,
    author       text NOT NULL,
    idempotency_key text COLLATE "C",          -- that it was asked for with
    created_at   timestamptz NOT NULL DEFAULT now(),
    ended_at     timestamptz,
    PRIMARY KEY (tenant, backfill_id),
    UNIQUE (tenant, idempotency_key)
);

CREATE INDEX backfills_under_way ON graphwright.backfills (created_at) WHERE ended_at IS NULL;
-- A run that repeats another has its trigger, and is not the backfill's.
ALTER TABLE graphwright.runs
    ADD COLUMN backfill_id text GENERATED ALWAYS AS (trigger ->> 'backfill_id') STORED;
CREATE INDEX runs_of_backfill ON graphwright.runs (tenant, backfill_id, status)
    WHERE backfill_id IS NOT NULL AND parent_run_id IS NULL;

-- What ends of runs set off: one row for each entry of `notify` that wants to know, made with the
-- run's end itself.
CREATE TABLE graphwright.notices (
    tenant      text COLLATE "C" NOT NULL,
    run_id      uuid NOT NULL,
    name        text COLLATE "C" NOT NULL,
    lane        text COLLATE "C" NOT NULL,     -- graph | costly (as in delivery_queue) | url
    slice       smallint GENERATED ALWAYS AS ((hashtextextended(tenant, 0) & 63)::smallint) STORED,
    status      text COLLATE "C" NOT NULL DEFAULT 'pending', -- pending | delivered | rejected
    attempts    integer NOT NULL DEFAULT 0,
    next_at     timestamptz NOT NULL DEFAULT now(), -- while its URL is called, when that is given up
    started     uuid,                          -- the run that it started
    reason      text,                          -- why the last attempt failed
    created_at  timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz,
    PRIMARY KEY (tenant, run_id, name)
);

CREATE INDEX notices_due ON graphwright.notices (lane, next_at) WHERE status = 'pending';

-- What its end sets off, by how it ends: {"failed": {name in `notify`: lane of the notice}}.
ALTER TABLE graphwright.runs ADD COLUMN notifies json;

-- Retention walks over deliveries and backfills as it does over runs, each at its own pace.
ALTER TABLE graphwright.retention
    DROP COLUMN one, ADD COLUMN walk text COLLATE "C" PRIMARY KEY DEFAULT 'runs';
INSERT INTO graphwright.retention (walk) VALUES ('deliveries'), ('backfills');

DO $$
BEGIN
    FOR part IN 0..15 LOOP
        EXECUTE format('CREATE TABLE graphwright.triggers_%s PARTITION OF graphwright.triggers FOR VALUES WITH (MODULUS 16, REMAINDER %s)', part, part);
        EXECUTE format('CREATE TABLE graphwright.deliveries_%s PARTITION OF graphwright.deliveries FOR VALUES WITH (MODULUS 16, REMAINDER %s)', part, part);
        EXECUTE format('CREATE TABLE graphwright.delivery_keys_%s PARTITION OF graphwright.delivery_keys FOR VALUES WITH (MODULUS 16, REMAINDER %s)', part, part);
    END LOOP;
END $$;
