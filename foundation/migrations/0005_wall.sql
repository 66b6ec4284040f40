-- The second wall between tenants. Every statement names its tenant; should one forget to, the
-- database does it: sessions that serve one tenant have the role graphwright_tenant, and see and
-- change only rows of the tenant that they have set. docs/security.md says what stands outside.

DO $$
BEGIN
    -- Roles are the server's, not the database's: others may be making it at this moment.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'graphwright_tenant') THEN
        BEGIN
            CREATE ROLE graphwright_tenant NOLOGIN;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'this needs the role graphwright_tenant, which % may not create', current_user
                    USING ERRCODE = 'insufficient_privilege',
                    HINT = format('Let a superuser run: CREATE ROLE graphwright_tenant NOLOGIN; GRANT graphwright_tenant TO %I', current_user);
        END;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'graphwright_tenant' AND (rolsuper OR rolbypassrls)) THEN
        RAISE EXCEPTION 'the role graphwright_tenant stands above row-level security'
            USING HINT = 'Let a superuser run: ALTER ROLE graphwright_tenant NOSUPERUSER NOBYPASSRLS';
    END IF;
    BEGIN
        SET LOCAL ROLE graphwright_tenant;  -- as sessions will
        RESET ROLE;
    EXCEPTION WHEN insufficient_privilege THEN
        BEGIN
            EXECUTE format('GRANT graphwright_tenant TO %I', current_user);
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE EXCEPTION '% may not take the role graphwright_tenant', current_user
                USING ERRCODE = 'insufficient_privilege',
                HINT = format('Let a superuser run: GRANT graphwright_tenant TO %I', current_user);
        END;
    END;
END $$;

-- Partitions are reached through their wholes, whose policies hold: nothing is granted on them. A
-- session that serves nobody has set nothing, or the empty name.
DO $$
DECLARE
    tenanted regclass;
BEGIN
    FOR tenanted IN
        SELECT c.oid FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'graphwright'::regnamespace AND c.relkind IN ('r', 'p')
            AND NOT c.relispartition AND a.attname = 'tenant' AND NOT a.attisdropped
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', tenanted);
        EXECUTE format(
            'CREATE POLICY own ON %s TO graphwright_tenant'
            ' USING (tenant = NULLIF(current_setting(''graphwright.tenant'', true), ''''))', tenanted
        );
    END LOOP;
END $$;

-- The row of what holds for all.
CREATE POLICY defaults ON graphwright.tenants FOR SELECT TO graphwright_tenant
    USING (tenant = '' AND current_setting('graphwright.tenant', true) <> '');
ALTER VIEW graphwright.tenant_policies SET (security_invoker = true);

GRANT USAGE ON SCHEMA graphwright TO graphwright_tenant;
GRANT SELECT ON
    graphwright.tenants, graphwright.tenant_policies, graphwright.tenant_days, graphwright.graphs,
    graphwright.graph_labels, graphwright.graph_drafts, graphwright.graph_versions,
    graphwright.recent_graphs, graphwright.triggers, graphwright.webhook_addresses, graphwright.timers,
    graphwright.runs, graphwright.run_queue, graphwright.run_slots, graphwright.node_outputs,
    graphwright.idempotency_keys, graphwright.deliveries, graphwright.delivery_queue, graphwright.backfills, graphwright.notices, graphwright.data_keys,
    graphwright.secrets, graphwright.members, graphwright.sessions,
    graphwright.audit
TO graphwright_tenant;

-- All but the hash.
GRANT SELECT (tenant, token_id, prefix, name, role, scopes, created_at, created_by, last_used_at, expires_at, revoked_at)
    ON graphwright.api_keys TO graphwright_tenant;

-- Its policy is the operator's to change.
GRANT INSERT (tenant) ON graphwright.tenants TO graphwright_tenant;
GRANT INSERT, UPDATE, DELETE ON
    graphwright.graphs, graphwright.graph_labels, graphwright.graph_drafts,
    graphwright.recent_graphs, graphwright.triggers, graphwright.timers,
    graphwright.run_queue, graphwright.secrets, graphwright.members
TO graphwright_tenant;
-- Versions do not change.
GRANT INSERT, DELETE ON
    graphwright.graph_versions, graphwright.webhook_addresses, graphwright.run_slots
TO graphwright_tenant;
-- Of a key that has expired, before it is used again.
GRANT DELETE ON graphwright.idempotency_keys TO graphwright_tenant;
GRANT INSERT ON
    graphwright.deliveries, graphwright.delivery_queue, graphwright.backfills,
    graphwright.node_outputs, graphwright.data_keys, graphwright.api_keys
TO graphwright_tenant;
-- To cancel, pause and resume. Runs are made, claimed and ended by others.
GRANT UPDATE (status, pausing, rests, limited) ON graphwright.runs TO graphwright_tenant;
GRANT UPDATE (status, not_before) ON graphwright.backfills TO graphwright_tenant;
GRANT UPDATE (revoked_at) ON graphwright.api_keys TO graphwright_tenant;
GRANT UPDATE (revoked_at, reason) ON graphwright.sessions TO graphwright_tenant;
-- Who may lock a row may change something of it: outputs that a re-run takes over are locked.
GRANT UPDATE (node) ON graphwright.node_outputs TO graphwright_tenant;
-- Whether somebody waits to be woken.
GRANT SELECT (idle, seen_at) ON graphwright.workers TO graphwright_tenant;

-- For a tenant's session too: a new data key must be under a master key that all processes have. Read
-- off the ends of an index.
CREATE FUNCTION graphwright.master_keys_in_use(OUT first text, OUT last text)
    STABLE SECURITY DEFINER SET search_path = graphwright, pg_temp
    LANGUAGE sql AS 'SELECT min(master_key), max(master_key) FROM graphwright.data_keys';
REVOKE EXECUTE ON FUNCTION graphwright.master_keys_in_use FROM PUBLIC;
GRANT EXECUTE ON FUNCTION graphwright.master_keys_in_use TO graphwright_tenant;

-- Dagster's tables know no tenants. They are read only where they are joined with graphwright.runs,
-- and of them only these columns. To be called again whenever Dagster has made its tables.
CREATE FUNCTION graphwright.grant_dagster() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    GRANT SELECT (id, run_id, event, dagster_event_type, "timestamp", step_key, xmin)
        ON public.event_logs TO graphwright_tenant;
    GRANT SELECT (run_id, pipeline_name, run_body) ON public.runs TO graphwright_tenant;
    GRANT SELECT (run_id, key, value) ON public.run_tags TO graphwright_tenant;
END $$;
