"""The graph store's SQL. tests/graph_defs/test_store_plans.py explains every statement here.

Each names the tenant, so that it touches one partition and no other tenant's rows.
"""

ENSURE_TENANT = """
INSERT INTO graphwright.tenants (tenant) VALUES (%(tenant)s) ON CONFLICT (tenant) DO NOTHING
"""

_GRAPH = """
SELECT g.tenant, g.graph_id::text, g.name, g.version, encode(v.fingerprint, 'hex') AS fingerprint,
       g.description, g.labels, g.created_at, g.updated_at
  FROM graphwright.graphs g
  JOIN graphwright.graph_versions v
    ON v.tenant = g.tenant AND v.graph_id = g.graph_id AND v.version = g.version
 WHERE g.tenant = %(tenant)s AND v.tenant = %(tenant)s
"""

GRAPH_BY_ID = _GRAPH + "AND g.graph_id = %(graph_id)s"
GRAPH_BY_NAME = _GRAPH + "AND g.name = %(name)s"

# Newest first: UUIDv7 orders by creation, and the primary key is read backwards.
FIRST_GRAPHS = _GRAPH + "ORDER BY g.graph_id DESC LIMIT %(limit)s"
GRAPHS_BEFORE = _GRAPH + "AND g.graph_id < %(before)s ORDER BY g.graph_id DESC LIMIT %(limit)s"

_VERSION = """
SELECT v.tenant, v.graph_version_id::text, v.graph_id::text, g.name, v.version,
       encode(v.fingerprint, 'hex') AS fingerprint, v.document, v.node_types, v.author, v.created_at
  FROM graphwright.graph_versions v
  JOIN graphwright.graphs g ON g.tenant = v.tenant AND g.graph_id = v.graph_id
 WHERE v.tenant = %(tenant)s AND g.tenant = %(tenant)s
"""

PUBLISHED_VERSION = _VERSION + "AND v.graph_id = %(graph_id)s AND v.version = g.version"
PUBLISHED_VERSION_BY_NAME = _VERSION + "AND g.name = %(name)s AND v.version = g.version"
NUMBERED_VERSION = _VERSION + "AND v.graph_id = %(graph_id)s AND v.version = %(version)s"
VERSION_BY_ID = _VERSION + "AND v.graph_version_id = %(graph_version_id)s"

LOCK_GRAPH = """
SELECT graph_id::text, version FROM graphwright.graphs
 WHERE tenant = %(tenant)s AND name = %(name)s
   FOR NO KEY UPDATE
"""

ADD_GRAPH = """
INSERT INTO graphwright.graphs (tenant, graph_id, name, version)
VALUES (%(tenant)s, %(graph_id)s, %(name)s, 0)
ON CONFLICT (tenant, name) DO NOTHING
RETURNING graph_id::text, version
"""

VERSION_OF_FINGERPRINT = """
SELECT version FROM graphwright.graph_versions
 WHERE tenant = %(tenant)s AND graph_id = %(graph_id)s
   AND fingerprint = decode(%(fingerprint)s, 'hex')
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

PUBLISH = """
UPDATE graphwright.graphs
   SET version = %(version)s, labels = %(labels)s, description = %(description)s,
       updated_at = now()
 WHERE tenant = %(tenant)s AND graph_id = %(graph_id)s
"""

MARK_USED = """
INSERT INTO graphwright.recent_graphs (graph_id, tenant) VALUES (%(graph_id)s, %(tenant)s)
ON CONFLICT (graph_id) DO UPDATE SET used_at = now()
"""
