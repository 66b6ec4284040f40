"""A database with many tenants, graphs and runs."""

from collections.abc import Generator
from typing import Any

import pytest

from foundation.database import connect
from foundation.ids import TenantId
from tests import services

TENANTS, GRAPHS, RUNS, EVENTS = 500, 30_000, 60_000, 240_000
TENANT = TenantId("tenant-7")

SEED: Any = f"""
INSERT INTO graphwright.tenants (tenant)
SELECT 'tenant-' || n FROM generate_series(0, {TENANTS - 1}) n;

INSERT INTO graphwright.graphs (tenant, graph_id, name, version)
SELECT 'tenant-' || n % {TENANTS}, md5('graph' || n)::uuid, 'graph-' || n, 1
  FROM generate_series(1, {GRAPHS}) n;

INSERT INTO graphwright.graph_labels (tenant, label, graph_id)
SELECT tenant, unnest(ARRAY['team:' || left(md5(name), 1), 'stage:prod']), graph_id
  FROM graphwright.graphs;

INSERT INTO graphwright.graph_drafts (tenant, graph_id, fingerprint, document, author)
SELECT tenant, graph_id, sha256(name::bytea), '{{}}', 'ann' FROM graphwright.graphs;

INSERT INTO graphwright.graph_versions
       (tenant, graph_version_id, graph_id, version, fingerprint, document, node_types, author)
SELECT tenant, md5(name)::uuid, graph_id, 1, sha256(name::bytea),
       '{{"metadata":{{"name":"' || name || '"}},"nodes":{{"a":{{}}}}}}', '{{}}', 'ann'
  FROM graphwright.graphs;

INSERT INTO graphwright.recent_graphs (graph_id, tenant)
SELECT graph_id, tenant FROM graphwright.graphs;

INSERT INTO graphwright.runs
       (tenant, run_id, sort_id, graph_id, graph_version_id, trigger, params, status, author)
SELECT 'tenant-' || n % {TENANTS}, md5('run' || n)::uuid, md5('run' || n)::uuid,
       md5('graph' || 1 + (n - 1) % {GRAPHS})::uuid, md5('graph-' || 1 + (n - 1) % {GRAPHS})::uuid,
       '{{"type": "rest"}}', '{{}}', CASE WHEN n % 20 > 0 THEN 'succeeded' ELSE 'failed' END,
       'ann'
  FROM generate_series(1, {RUNS}) n;

INSERT INTO graphwright.run_queue (run_id, tenant, graph_id, state, slot, slot_limit)
SELECT run_id, tenant, graph_id,
       (ARRAY['ready', 'delayed', 'blocked', 'limited'])[1 + row_number() OVER () % 4],
       'slot' || row_number() OVER () % 100, 1
  FROM graphwright.runs LIMIT 10000;

INSERT INTO graphwright.idempotency_keys (tenant, key, run_id, request, expires_at)
SELECT tenant, run_id::text, run_id, '', now() FROM graphwright.runs;

INSERT INTO graphwright.run_slots (tenant, slot, run_id)
SELECT tenant, 'slot' || row_number() OVER () % 100, run_id FROM graphwright.runs LIMIT 10000;

INSERT INTO graphwright.tenant_days (tenant, day, runs)
SELECT 'tenant-' || n, '2026-01-01', 1 FROM generate_series(1, 5000) n;

INSERT INTO graphwright.node_outputs (tenant, run_id, node, value)
SELECT tenant, run_id, 'a', '1' FROM graphwright.runs;

INSERT INTO graphwright.triggers (tenant, trigger_id, graph_id, name, type, config, address)
SELECT tenant, graph_id, graph_id, 'hook', 'webhook',
       '{{"type": "webhook", "scheme": "none"}}'::json, md5(name)
  FROM graphwright.graphs
UNION ALL
SELECT tenant, md5('timer' || name)::uuid, graph_id, 'timer', 'timer',
       '{{"type": "timer", "every": "1h"}}', NULL
  FROM graphwright.graphs;

INSERT INTO graphwright.webhook_addresses (address, tenant, trigger_id)
SELECT address, tenant, trigger_id FROM graphwright.triggers WHERE type = 'webhook';

INSERT INTO graphwright.timers (trigger_id, tenant, due_at, fire_at)
SELECT trigger_id, tenant, now(), now() FROM graphwright.triggers WHERE type = 'timer';

INSERT INTO graphwright.deliveries
       (tenant, delivery_id, trigger_id, graph_id, received_at, headers, query, body, verdict)
SELECT tenant, run_id, graph_id, graph_id, now(), '{{}}', '{{}}', '{{}}',
       CASE WHEN status = 'failed' THEN 'rejected' ELSE 'started' END
  FROM graphwright.runs;

INSERT INTO graphwright.delivery_queue (delivery_id, tenant)
SELECT delivery_id, tenant FROM graphwright.deliveries LIMIT 10000;

INSERT INTO graphwright.backfills
       (tenant, backfill_id, trigger_id, graph_id, name, config, from_at, to_at, next_at,
        max_running, total, author, ended_at)
SELECT tenant, trigger_id, trigger_id, graph_id, name, config, now(), now(), now(), 1, 1, 'ann',
       now()
  FROM graphwright.triggers WHERE type = 'timer';

INSERT INTO graphwright.notices (tenant, run_id, name, lane)
SELECT tenant, run_id, 'tell', 'url' FROM graphwright.runs;

INSERT INTO graphwright.data_keys (tenant, data_key_id, wrapped, master_key)
SELECT 'tenant-' || n, md5('key' || n)::uuid, '', 'first' FROM generate_series(1, 30000) n;

INSERT INTO graphwright.secrets (tenant, name, data_key_id, value, author)
SELECT tenant, 'key', data_key_id, '', 'ann' FROM graphwright.data_keys;

INSERT INTO graphwright.members (tenant, subject, role, created_by)
SELECT 'tenant-' || n % {TENANTS}, 'subject-' || n, 'viewer', 'ann'
  FROM generate_series(1, 30000) n;

INSERT INTO graphwright.api_keys (tenant, token_id, prefix, hash, name, role, created_by)
SELECT tenant, graph_id, name, '', name, 'viewer', 'ann' FROM graphwright.graphs;

INSERT INTO graphwright.sessions (tenant, session_id, token_id, expires_at)
SELECT tenant, token_id, token_id, now() + interval '1 day' FROM graphwright.api_keys;

INSERT INTO graphwright.audit
       (tenant, audit_id, subject, token_id, action, target, status, request_id)
SELECT tenant, run_id, 'ann' || graph_id, '', 'graphs.publish', '{{}}', 201, ''
  FROM graphwright.runs;

INSERT INTO runs (run_id, pipeline_name, status, run_body, create_timestamp, update_timestamp)
SELECT run_id::text, 'job', 'SUCCESS', '{{}}', now(), now() FROM graphwright.runs;

INSERT INTO run_tags (run_id, key, value)
SELECT run_id::text, 'graphwright/tenant', tenant FROM graphwright.runs;

INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, step_key)
SELECT md5('run' || 1 + n % {RUNS})::uuid::text, '{{}}',
       (ARRAY['PIPELINE_ENQUEUED', 'STEP_START', 'STEP_SUCCESS', 'PIPELINE_SUCCESS'])
       [1 + n / {RUNS}],
       now(), CASE WHEN n / {RUNS} IN (1, 2) THEN 'a' END
  FROM generate_series(0, {EVENTS - 1}) n;
"""


@pytest.fixture(scope="module")
def volume_url(postgres_url: str, template_database: str) -> Generator[str]:
    with services.cloned_database(postgres_url, template_database) as url:
        with connect(url) as connection:
            connection.execute(SEED)
            connection.execute("VACUUM ANALYZE")
        yield url
