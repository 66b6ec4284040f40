"""Many graphs of many tenants, stored by SQL."""

import json
from typing import Final, LiteralString

from bench.support.graphs import CHAIN_10, chain
from foundation.database import Connection

DOCUMENT: Final = json.dumps(chain(CHAIN_10, "NAME"))

TENANTS: Final[LiteralString] = """
INSERT INTO graphwright.tenants (tenant)
SELECT 'tenant-' || number FROM generate_series(0, %(tenants)s - 1) number
"""
GRAPHS: Final[LiteralString] = """
INSERT INTO graphwright.graphs (tenant, graph_id, name, version)
SELECT 'tenant-' || number %% %(tenants)s, uuidv7(), 'graph-' || number, 1
FROM generate_series(0, %(count)s - 1) number
"""
VERSIONS: Final[LiteralString] = """
INSERT INTO graphwright.graph_versions
       (tenant, graph_version_id, graph_id, version, fingerprint, document, node_types, author)
SELECT tenant, uuidv7(), graph_id, 1, sha256(name::bytea), replace(%(document)s, 'NAME', name),
       %(node_types)s, 'bench'
FROM graphwright.graphs WHERE tenant LIKE 'tenant-%%'
"""


def store(database: Connection, count: int, tenants: int) -> None:
    """Chains of ten nodes: ``graph-N`` belongs to ``tenant-(N % tenants)``."""
    given = {
        "count": count,
        "tenants": tenants,
        "document": DOCUMENT,
        "node_types": json.dumps({"data.transform": 1}),
    }
    database.execute(TENANTS, {"tenants": tenants})
    for statement in (GRAPHS, VERSIONS):
        database.execute(statement, given)
