"""Notices: a run has ended, and an entry of its graph's ``notify`` wants to know."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

import orjson
from psycopg.rows import DictRow

from foundation.database import AsyncConnection
from foundation.ids import GraphVersionId, RunId, TenantId
from foundation.recent import Recent
from graph_defs.expressions import Evaluator, Template
from graph_defs.json_values import Json, JsonObject
from graph_defs.triggers import Notify
from sensors.notice_statements import DOCUMENT

_KEPT: Final = 4_096
_NAMESPACE: Final = uuid.UUID("b1f9a0c5-2c5e-4f0e-9a86-7d3d1a4c9e62")


def notice_id(run_id: RunId, entry: str) -> str:
    """The id of a notice, and of the run that it starts: always the same, so that it can be told
    when it comes twice."""
    return str(uuid.uuid5(_NAMESPACE, f"{run_id}/{entry}"))


@dataclass(frozen=True, slots=True)
class EndedRun:
    """The run whose end it is about."""

    graph_version_id: GraphVersionId
    graph: str
    version: int
    status: str
    ended_at: datetime
    error: JsonObject | None


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice that was claimed."""

    tenant: TenantId
    run_id: RunId
    entry: str
    """Its name in ``notify``."""
    run: EndedRun | None
    """None where it has been removed since."""

    @classmethod
    def of(cls, row: DictRow) -> "Notice":
        run = None
        if row["graph_version_id"] is not None:
            names = ("graph_version_id", "graph", "version", "status", "ended_at", "error")
            given: dict[str, Any] = {name: row[name] for name in names}
            run = EndedRun(**given)
        return cls(TenantId(row["tenant"]), RunId(row["run_id"]), row["entry"], run)

    @property
    def id(self) -> str:
        return notice_id(self.run_id, self.entry)


@dataclass(frozen=True, slots=True)
class Entry:
    """What an entry of ``notify`` asks for."""

    notify: Notify
    params: Template


class Entries:
    """The entries of versions, which never change. Those that were used last are kept."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._kept = Recent[GraphVersionId, Mapping[str, Entry]](_KEPT)

    async def get(
        self, connection: AsyncConnection, tenant: TenantId, run: EndedRun, name: str
    ) -> Entry:
        """The entry of this name in the run's version; there is one, or there were no notice."""
        entries = self._kept.get(run.graph_version_id)
        if entries is None:
            values = {"tenant": tenant, "graph_version_id": run.graph_version_id}
            row = await (await connection.execute(DOCUMENT, values, prepare=True)).fetchone()
            assert row is not None
            entries = {
                name: self._prepared(Notify.model_validate(entry))
                for name, entry in orjson.loads(row["document"])["notify"].items()
            }
            self._kept.keep(run.graph_version_id, entries)
        return entries[name]

    def _prepared(self, notify: Notify) -> Entry:
        return Entry(notify, self._evaluator.compile(cast("Json", notify.params)))
