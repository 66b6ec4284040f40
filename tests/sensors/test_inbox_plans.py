"""No statement of the inbox reads a big table from end to end, analyzed or not."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from foundation.database import Connection, connect
from foundation.ids import new_id
from sensors.inbox_statements import ACCEPT, ADDRESSED

SEED: Any = """
INSERT INTO graphwright.delivery_keys
SELECT 'tenant-' || n % 500, md5('trigger' || n % 500)::uuid, 'id:' || n, md5('d' || n)::uuid,
    now() + interval '1 day'
FROM generate_series(1, 30000) n;
INSERT INTO graphwright.triggers (tenant, trigger_id, graph_id, name, type, config, address)
SELECT 'tenant-' || n % 500, md5('trigger' || n)::uuid, md5('graph' || n)::uuid, 'hook', 'webhook',
    '{}', md5('address' || n)
FROM generate_series(1, 20000) n;
INSERT INTO graphwright.webhook_addresses
SELECT address, tenant, trigger_id FROM graphwright.triggers;
"""
KEYS = [
    {
        "tenant": "tenant-7",
        "trigger_id": new_id(),
        "key": f"id:{n}",
        "delivery_id": new_id(),
        "seconds": 60,
        "several": True,
    }
    for n in range(256)
]
SENT: list[tuple[Any, dict[str, Any]]] = [
    (ACCEPT, {"calls": "[]", "keys": json.dumps(KEYS), "bodies": b""}),
    (ADDRESSED, {"address": "0" * 32}),
]


@pytest.mark.parametrize(("seeded", "analyzed"), [(False, False), (True, False), (True, True)])
def test_plans(database_url: str, seeded: bool, analyzed: bool) -> None:
    with connect(database_url) as connection:
        if seeded:
            connection.execute(SEED)
        if analyzed:
            connection.execute("ANALYZE")
        connection.execute("SET enable_seqscan = off")  # as the receiver's pool does
        for statement, values in SENT:
            assert not set(_scanned(connection, statement, values))


def _scanned(connection: Connection, statement: Any, values: dict[str, Any]) -> Iterator[str]:
    explain: Any = f"EXPLAIN (FORMAT JSON) {statement}"
    row = connection.execute(explain, values).fetchone()
    assert row is not None
    plans = [row["QUERY PLAN"][0]["Plan"]]
    while plans:
        plan = plans.pop()
        plans += plan.get("Plans", [])
        if plan["Node Type"] == "Seq Scan":
            yield re.sub(r"_\d+$", "", plan["Relation Name"])
