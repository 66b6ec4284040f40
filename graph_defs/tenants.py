"""Tenants, and what each may take. Where a tenant has no value of its own, the default holds."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, LiteralString, Self

from psycopg.types.json import Jsonb

from foundation.database import Connection
from foundation.errors import NotFound
from foundation.ids import TenantId
from graph_defs.placement import Isolation
from graph_defs.placement_policy import PlacementPolicy

DEFAULT: Final = TenantId("")
"""The row that holds what is true of all tenants without a value of their own."""

READ: Final[LiteralString] = """
SELECT tenant, weight, max_running, max_queued, max_runs_per_day, max_graphs, retention_days,
    isolations, placement
FROM graphwright.tenants WHERE tenant = %s
"""

EFFECTIVE: Final[LiteralString] = """
SELECT tenant, weight, max_running, max_queued, max_runs_per_day, max_graphs, retention_days,
    isolations, placement
FROM graphwright.tenant_policies WHERE tenant = %s
"""

LIST: Final[LiteralString] = """
SELECT tenant, weight, max_running, max_queued, max_runs_per_day, max_graphs, retention_days,
    isolations, placement
FROM graphwright.tenant_policies WHERE tenant > %s ORDER BY tenant LIMIT %s
"""

WRITE: Final[LiteralString] = """
UPDATE graphwright.tenants SET
    weight = %(weight)s, max_running = %(max_running)s, max_queued = %(max_queued)s,
    max_runs_per_day = %(max_runs_per_day)s, max_graphs = %(max_graphs)s,
    retention_days = %(retention_days)s, isolations = %(isolations)s, placement = %(placement)s
WHERE tenant = %(tenant)s
"""


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """A tenant's share and bounds; None: no value of its own, or no bound at all."""

    tenant: TenantId
    weight: int | None = None
    """Runs that it starts in a round in which every tenant with work has its turn; 1 to 1,000."""
    max_running: int | None = None
    """Runs under way at once: from their start to their end, waiting and paused ones too."""
    max_queued: int | None = None
    max_runs_per_day: int | None = None
    """Runs accepted a day, in UTC. Counted from when the bound was set."""
    max_graphs: int | None = None
    retention_days: int | None = None
    isolations: tuple[Isolation, ...] | None = None
    """Which its graphs may ask for."""
    placement: PlacementPolicy | None = None
    """What they may ask for outside of a warm worker."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row of ``graphwright.tenants`` or ``graphwright.tenant_policies``."""
        values: dict[str, Any] = {**row}
        if row["isolations"] is not None:
            values["isolations"] = tuple(row["isolations"])
        if row["placement"] is not None:
            values["placement"] = PlacementPolicy.model_validate(row["placement"])
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        said = None
        if self.placement is not None:
            said = self.placement.model_dump(mode="json", exclude_defaults=True)
        return {**asdict(replace(self, placement=None)), "placement": said}


POLICY_FIELDS: Final = tuple(f.name for f in fields(TenantPolicy) if f.name != "tenant")


def read_policy(
    connection: Connection, tenant: TenantId, *, effective: bool = False
) -> TenantPolicy:
    """The tenant's own values or, if ``effective``, what holds for it. Raises NotFound."""
    row = connection.execute(EFFECTIVE if effective else READ, (tenant,)).fetchone()
    if row is None:
        raise NotFound(
            f"there is no tenant {tenant}",
            hint="`graphwright token --tenant TENANT` makes one.",
            tenant=tenant,
        )
    return TenantPolicy.of(row)


def list_policies(connection: Connection, after: str, limit: int) -> list[TenantPolicy]:
    """What holds for up to ``limit`` tenants, in the order of their names, from ``after`` on."""
    return [TenantPolicy.of(row) for row in connection.execute(LIST, (after, limit))]


def change_policy(
    connection: Connection, tenant: TenantId, changes: Mapping[str, Any]
) -> TenantPolicy:
    """Set some of the tenant's own values, by their names; None takes one away. Raises NotFound."""
    with connection.transaction():
        old = read_policy(connection, tenant)
        values = {name: getattr(old, name) for name in POLICY_FIELDS} | dict(changes)
        placement: PlacementPolicy | None = values["placement"]
        connection.execute(
            WRITE,
            {
                **values,
                "tenant": tenant,
                "isolations": values["isolations"] and list(values["isolations"]),
                "placement": placement
                and Jsonb(placement.model_dump(mode="json", exclude_defaults=True)),
            },
        )
        return read_policy(connection, tenant)
