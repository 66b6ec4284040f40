"""The graph store's SQL. tests/live_api/test_query_plans.py explains every statement here.

Each names the tenant, so that it touches one partition and no other tenant's rows.
"""

ENSURE_TENANT = """
INSERT INTO graphwright.tenants (tenant) VALUES (%(tenant)s) ON CONFLICT (tenant) DO NOTHING
"""

_COLUMNS = """
SELECT g.tenant, g.graph_id::text, g.name, g.version, encode(v.fingerprint, 'hex') AS fingerprint,
       g.description, g.labels, g.created_at, g.updated_at, g.paused
"""
_PUBLISHED = """
  LEFT JOIN graphwright.graph_versions v
    ON v.tenant = g.tenant AND v.graph_id = g.graph_id AND v.version = g.version
"""
_GRAPH = f"""{_COLUMNS}
  FROM graphwright.graphs g {_PUBLISHED}
 WHERE g.tenant = %(tenant)s AND g.deleted_at IS NULL
"""

GRAPH_BY_ID = _GRAPH + "AND g.graph_id = %(graph_id)s"
# Of several that are asked for at the same time. Each is looked up by its whole key: while a table
# has no statistics, `= ANY` would have all graphs of the tenant read.
GRAPHS_BY_ID = f"""
SELECT graph.* FROM unnest(%(keys)s::uuid[]) AS asked (key), LATERAL (
{_GRAPH} AND g.graph_id = asked.key LIMIT 1) graph
"""  # noqa: S608 - made of constants
GRAPHS_BY_NAME = f"""
SELECT graph.* FROM unnest(%(keys)s::text[]) AS asked (key), LATERAL (
{_GRAPH} AND g.name = asked.key LIMIT 1) graph
"""  # noqa: S608 - made of constants

# Newest first: UUIDv7 orders by creation, and the primary key is read backwards.
FIRST_GRAPHS = _GRAPH + "ORDER BY g.graph_id DESC LIMIT %(limit)s"
GRAPHS_BEFORE = _GRAPH + "AND g.graph_id < %(before)s ORDER BY g.graph_id DESC LIMIT %(limit)s"

# The graphs of the first label, and of these the ones that have all.
_LABELLED = f"""{_COLUMNS}
  FROM graphwright.graph_labels l
  JOIN graphwright.graphs g ON g.tenant = l.tenant AND g.graph_id = l.graph_id {_PUBLISHED}
 WHERE l.tenant = %(tenant)s AND l.label = %(label)s AND g.labels @> ALL(%(labels)s)
"""
FIRST_LABELLED = _LABELLED + "ORDER BY l.graph_id DESC LIMIT %(limit)s"
LABELLED_BEFORE = _LABELLED + "AND l.graph_id < %(before)s ORDER BY l.graph_id DESC LIMIT %(limit)s"

_VERSION = """
SELECT v.tenant, v.graph_version_id::text, v.graph_id::text, g.name, v.version,
       encode(v.fingerprint, 'hex') AS fingerprint, v.document, v.node_types, v.author, v.created_at
  FROM graphwright.graph_versions v
  JOIN graphwright.graphs g ON g.tenant = v.tenant AND g.graph_id = v.graph_id
 WHERE v.tenant = %(tenant)s AND g.tenant = %(tenant)s
"""

PUBLISHED_VERSION = _VERSION + "AND v.graph_id = %(graph_id)s AND v.version = g.version"
PUBLISHED_VERSION_BY_NAME = (
    _VERSION + "AND g.name = %(name)s AND g.deleted_at IS NULL AND v.version = g.version"
)
NUMBERED_VERSION = (
    _VERSION + "AND v.graph_id = %(graph_id)s AND v.version = %(version)s AND g.deleted_at IS NULL"
)
# Also of a graph that was deleted: its runs may not have ended.
VERSION_BY_ID = _VERSION + "AND v.graph_version_id = %(graph_version_id)s"

# Without documents that have too many bytes. A lateral keeps PostgreSQL from joining, for which it
# may read all graphs.
_BOUNDED = "CASE WHEN octet_length(v.document) <= %(most_bytes)s THEN v.document END AS document"
PUBLISHED_VERSIONS = (
    """
SELECT published.*
  FROM unnest(%(tenants)s::text[], %(graph_ids)s::uuid[]) AS asked (tenant, graph_id), LATERAL (
"""
    + _VERSION.replace("%(tenant)s", "asked.tenant").replace("v.document", _BOUNDED)
    + """
       AND v.graph_id = asked.graph_id AND g.graph_id = asked.graph_id AND v.version = g.version
       LIMIT 1
  ) published
"""
)

DOCUMENT = """
SELECT v.document
  FROM graphwright.graph_versions v
 WHERE v.tenant = %(tenant)s AND v.graph_id = %(graph_id)s AND v.version = %(version)s
"""

VERSION_SUMMARIES = """
SELECT v.version, encode(v.fingerprint, 'hex') AS fingerprint, v.author, v.created_at
  FROM graphwright.graph_versions v
 WHERE v.tenant = %(tenant)s AND v.graph_id = %(graph_id)s AND v.version < %(before)s
 ORDER BY v.version DESC LIMIT %(limit)s
"""

_LOCK = """
SELECT graph_id::text, name, version, labels FROM graphwright.graphs
 WHERE tenant = %(tenant)s AND deleted_at IS NULL
"""
LOCK_GRAPH = _LOCK + "AND name = %(name)s FOR NO KEY UPDATE"
LOCK_GRAPH_BY_ID = _LOCK + "AND graph_id = %(graph_id)s FOR NO KEY UPDATE"

# Not where the tenant has as many graphs as it may have.
ADD_GRAPH = """
INSERT INTO graphwright.graphs (tenant, graph_id, name, version)
SELECT %(tenant)s, %(graph_id)s, %(name)s, 0
WHERE NOT EXISTS (
    SELECT FROM graphwright.tenant_policies p
    WHERE p.tenant = %(tenant)s AND p.max_graphs <= (
        SELECT count(*) FROM (
            SELECT FROM graphwright.graphs g
            WHERE g.tenant = %(tenant)s AND g.deleted_at IS NULL LIMIT p.max_graphs
        ) stored
    )
)
ON CONFLICT (tenant, name) WHERE deleted_at IS NULL DO NOTHING
RETURNING graph_id::text, name, version, labels
"""

# What is known of a locked graph: where its tenant's runs may go, the version that has the document
# already, whether there are triggers.
BEFORE_PUBLISHING = """
SELECT p.isolations, p.placement,
       (SELECT v.version FROM graphwright.graph_versions v
         WHERE v.tenant = %(tenant)s AND v.graph_id = %(graph_id)s
           AND v.fingerprint = decode(%(fingerprint)s, 'hex')) AS version,
       EXISTS (SELECT FROM graphwright.triggers t
                WHERE t.tenant = %(tenant)s AND t.graph_id = %(graph_id)s) AS has_triggers
  FROM graphwright.tenant_policies p WHERE p.tenant = %(tenant)s
"""

ADD_VERSION = """
INSERT INTO graphwright.graph_versions
       (tenant, graph_version_id, graph_id, version, fingerprint, document, node_types, author)
SELECT %(tenant)s, %(graph_version_id)s, %(graph_id)s, coalesce(max(version), 0) + 1,
       decode(%(fingerprint)s, 'hex'), %(document)s, %(node_types)s, %(author)s
  FROM graphwright.graph_versions
 WHERE tenant = %(tenant)s AND graph_id = %(graph_id)s
RETURNING version
"""

# Not listed where a run of the graph is listing it: that may hold a timer which this changes next.
PUBLISH = """
WITH used AS (
    INSERT INTO graphwright.recent_graphs (graph_id, tenant) SELECT %(graph_id)s::uuid, %(tenant)s
    WHERE pg_try_advisory_xact_lock(
        hashtextextended('graphwright/recent/' || %(graph_id)s::uuid, 0))
    ON CONFLICT (graph_id) DO UPDATE SET used_at = now()
)
UPDATE graphwright.graphs
   SET version = %(version)s, labels = %(labels)s, description = %(description)s,
       updated_at = now()
 WHERE tenant = %(tenant)s AND graph_id = %(graph_id)s
RETURNING graph_id::text, created_at, updated_at, paused
"""

CHANGE_LABELS = """
WITH removed AS (
    DELETE FROM graphwright.graph_labels
     WHERE tenant = %(tenant)s AND graph_id = %(graph_id)s AND label = ANY(%(gone)s)
)
INSERT INTO graphwright.graph_labels (tenant, label, graph_id)
SELECT %(tenant)s, label, %(graph_id)s FROM unnest(%(new)s::text[]) label
"""

_DRAFT = """
SELECT d.tenant, d.graph_id::text, g.name, g.version AS published_version,
       encode(d.fingerprint, 'hex') AS fingerprint, d.document, d.author, d.created_at, d.updated_at
  FROM graphwright.graph_drafts d
  JOIN graphwright.graphs g ON g.tenant = d.tenant AND g.graph_id = d.graph_id
 WHERE d.tenant = %(tenant)s AND g.tenant = %(tenant)s
"""
DRAFT_BY_ID = _DRAFT + "AND d.graph_id = %(graph_id)s"
DRAFT_BY_NAME = _DRAFT + "AND g.name = %(name)s AND g.deleted_at IS NULL"

PUT_DRAFT = """
INSERT INTO graphwright.graph_drafts AS d (tenant, graph_id, fingerprint, document, author)
VALUES (%(tenant)s, %(graph_id)s, decode(%(fingerprint)s, 'hex'), %(document)s, %(author)s)
ON CONFLICT (tenant, graph_id) DO UPDATE
SET fingerprint = excluded.fingerprint, document = excluded.document, author = excluded.author,
    updated_at = now()
"""
DELETE_DRAFT = """
DELETE FROM graphwright.graph_drafts WHERE tenant = %(tenant)s AND graph_id = %(graph_id)s
"""

UNFINISHED_RUNS = """
SELECT run_id::text FROM graphwright.runs
 WHERE tenant = %(tenant)s AND graph_id = %(graph_id)s
   AND status = ANY('{queued,running,waiting,paused,cancelling}')
 LIMIT 1
"""

DELETE_GRAPH = """
WITH listed AS (
    DELETE FROM graphwright.recent_graphs WHERE graph_id = %(graph_id)s
), drafted AS (
    DELETE FROM graphwright.graph_drafts WHERE tenant = %(tenant)s AND graph_id = %(graph_id)s
)
UPDATE graphwright.graphs SET version = 0, pinned = false, deleted_at = now()
 WHERE tenant = %(tenant)s AND graph_id = %(graph_id)s
"""
