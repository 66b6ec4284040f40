"""The storage that ``dagster.yaml`` names, for our workers and Dagster's own processes alike.

A subclass of dagster-postgres's: connections are pooled, what the schema looks like is asked once,
and events go through the :class:`EventWriter`. Every read first waits for what this process has
appended, so that Dagster reads its own writes.

This module knows Dagster's private classes; the contract is tests/dynamic_jobs/test_storage_*.py.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ContextManager, Final, cast  # noqa: UP035 - the base class says so too

from dagster import DagsterInstance, EventLogEntry, Field, RunRecord, RunsFilter, StringSource
from dagster._config.config_schema import UserConfigSchema
from dagster._core.storage.config import PostgresStorageConfig, pg_config
from dagster._serdes import ConfigurableClassData
from dagster_postgres import (
    DagsterPostgresStorage,
    PostgresEventLogStorage,
    PostgresRunStorage,
    PostgresScheduleStorage,
)
from dagster_postgres.utils import (
    create_pg_connection,
    create_pg_engine,
    pg_url_from_config,
    set_pg_statement_timeout,
)
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine

from dynamic_jobs.compiling import order as compile_order
from dynamic_jobs.storage.publisher import Publisher
from dynamic_jobs.storage.records import Record
from dynamic_jobs.storage.statements import CURSOR_VALUES, STORE_SNAPSHOTS
from dynamic_jobs.storage.writer import EventWriter
from foundation.database import pinned
from foundation.ids import RunId

_POOL: Final[Mapping[str, Any]] = {
    "pool_size": 2,
    "max_overflow": 20,
    "pool_pre_ping": True,
    "pool_recycle": 3_600,
}


class _Pooled:
    """One pooled engine and one writer, shared by the storages of a process."""

    _engine: Engine
    writer: EventWriter

    def share(self, engine: Engine, writer: EventWriter) -> None:
        self._engine.dispose()
        self._engine = engine
        self.writer = writer

    def optimize_for_webserver(
        self, statement_timeout: int, pool_recycle: int, max_overflow: int
    ) -> None:
        """Dagster would replace the engine; ours is pooled already and only wants the timeout."""

        def limit(connection: Any, _record: object) -> None:
            set_pg_statement_timeout(connection, statement_timeout)

        sqlalchemy_event.listen(self._engine, "connect", limit)

    @contextmanager
    def _read_own_writes(self, *run_ids: str) -> Any:
        """A connection that sees what this process has appended; if named, to these runs only."""
        if not run_ids:
            self.writer.catch_up()
        for run_id in run_ids:
            self.writer.catch_up(RunId(run_id))
        with create_pg_connection(self._engine) as connection:
            yield connection


class GraphwrightEventLogStorage(_Pooled, PostgresEventLogStorage):
    """Dagster's event log, written by the batch writer."""

    @property
    def handles_run_events_in_store_event(self) -> bool:
        """The writer changes the run's status in the transaction of the event."""
        return True

    def store_event(self, event: EventLogEntry) -> None:
        """Store one event: later if this process holds the run, and flushes it; else at once."""
        self._store([Record.of(event)])

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Like :meth:`store_event`; failures to materialize are left out, as Dagster has it."""
        self._store(
            [
                Record.of(event)
                for event in events
                if event.dagster_event is None
                or not event.dagster_event.is_asset_failed_to_materialize
            ]
        )

    def _store(self, records: Sequence[Record]) -> None:
        self.writer.append(*records)
        for run_id in {record.run_id for record in records}:
            if self.writer.lease(run_id) is None:
                self.writer.flush(run_id)

    def _connect(self) -> ContextManager[Connection]:
        return self._read_own_writes()

    def run_connection(self, run_id: str | None = None) -> ContextManager[Connection]:
        return self._read_own_writes(run_id) if run_id else self._read_own_writes()

    def dispose(self) -> None:
        super().dispose()
        self.writer.close()
        self._engine.dispose()


class GraphwrightRunStorage(_Pooled, PostgresRunStorage):
    """Dagster's runs; columns and snapshots, which never go away, are looked up once."""

    def share(self, engine: Engine, writer: EventWriter) -> None:
        super().share(engine, writer)
        self._snapshots: set[str] = set()
        self._columns: set[str] = set()
        self._asked = threading.local()

    def connect(self) -> ContextManager[Connection]:
        asked: Sequence[str] = getattr(self._asked, "run_ids", ())
        return self._read_own_writes(*asked)

    def get_run_records(
        self, filters: RunsFilter | None = None, *args: Any, **kwargs: Any
    ) -> Sequence[RunRecord]:
        """As Dagster does; where runs are named, only their own events are waited for."""
        # A worker asks for one run while those of a hundred others are being written.
        self._asked.run_ids = filters.run_ids or () if filters else ()
        try:
            return super().get_run_records(filters, *args, **kwargs)
        finally:
            self._asked.run_ids = ()

    def has_execution_plan_snapshot(self, execution_plan_snapshot_id: str) -> bool:
        return self._has_snapshot_id(execution_plan_snapshot_id)  # the base loads it whole

    def _has_snapshot_id(self, snapshot_id: str) -> bool:
        if snapshot_id not in self._snapshots and super()._has_snapshot_id(snapshot_id):
            self._snapshots.add(snapshot_id)
        return snapshot_id in self._snapshots

    def has_run_stats_index_cols(self) -> bool:
        return self._has_columns("run_stats", super().has_run_stats_index_cols)

    def has_backfill_id_column(self) -> bool:
        return self._has_columns("backfill_id", super().has_backfill_id_column)

    def get_cursor_values(self, keys: set[str]) -> Mapping[str, str]:
        """As the base class, whose statement is compiled anew for each number of keys.

        It waits for no events: with those no such value is written.
        """
        with create_pg_connection(self._engine) as connection:
            rows = connection.execute(text(CURSOR_VALUES), {"keys": list(keys)})
            return {row.key: row.value for row in rows}

    def store_snapshots(self, key: str, job: tuple[str, bytes], plan: tuple[str, bytes]) -> None:
        """Store both snapshots, each an id and a compressed text, where they are missing.

        Both ids are noted as the cursor value of ``key``.
        """
        values = {
            "key": key,
            "ids": f"{job[0]} {plan[0]}",
            "job_id": job[0],
            "job": job[1],
            "plan_id": plan[0],
            "plan": plan[1],
        }
        with create_pg_connection(self._engine) as connection:
            connection.execute(text(STORE_SNAPSHOTS), values)

    def _has_columns(self, name: str, ask: Any) -> bool:
        # Only that they are there is kept: a migration may add them while this process works.
        if name not in self._columns and ask():
            self._columns.add(name)
        return name in self._columns


class GraphwrightScheduleStorage(_Pooled, PostgresScheduleStorage):
    """Dagster's schedules, sensors and ticks."""

    def connect(self, run_id: str | None = None) -> ContextManager[Connection]:
        return self._read_own_writes()


class GraphwrightStorage(DagsterPostgresStorage):
    """All three over one connection pool and one event writer.

    Config: that of dagster-postgres, and ``redis_url``, where committed events are published.
    """

    def __init__(
        self,
        postgres_url: str,
        redis_url: str = "",
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        postgres_url = pinned(postgres_url)
        super().__init__(postgres_url, should_autocreate_tables, inst_data)
        engine = create_pg_engine(postgres_url, None, isolation_level="AUTOCOMMIT", **_POOL)
        self.publisher = Publisher(redis_url)
        self.writer = EventWriter(postgres_url, self.publisher)
        self._run_storage = GraphwrightRunStorage(postgres_url, should_autocreate_tables=False)
        self._event_log_storage = GraphwrightEventLogStorage(
            postgres_url, should_autocreate_tables=False
        )
        self._schedule_storage = GraphwrightScheduleStorage(
            postgres_url, should_autocreate_tables=False
        )
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage.share(engine, self.writer)

    @property
    def runs(self) -> GraphwrightRunStorage:
        return self._run_storage

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        schema = cast("Mapping[str, Any]", pg_config())
        return {**schema, "redis_url": Field(StringSource, is_required=False, default_value="")}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: PostgresStorageConfig
    ) -> "GraphwrightStorage":
        compile_order.install()  # Dagster's own processes sort steps too, and load this class
        values = cast("Mapping[str, Any]", config_value)
        return cls(
            postgres_url=pg_url_from_config(config_value),
            redis_url=values.get("redis_url", ""),
            should_autocreate_tables=values.get("should_autocreate_tables", True),
            inst_data=inst_data,
        )


def event_storage_of(instance: DagsterInstance) -> GraphwrightEventLogStorage:
    """The event log of an instance that uses :class:`GraphwrightStorage`, with its writer."""
    storage = instance.event_log_storage
    if not isinstance(storage, GraphwrightEventLogStorage):
        raise TypeError("dagster.yaml must name dynamic_jobs.storage.GraphwrightStorage")
    return storage
