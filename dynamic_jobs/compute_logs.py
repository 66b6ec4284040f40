"""What the Dagster UI shows as a run's stdout and stderr.

A warm worker executes many tenants' runs at once, so what it prints belongs to none of them and is
not captured. Their ``stderr`` is read, when somebody looks, from the lines that nodes log
(``node.log``). A process that executes one run is captured (:func:`captured`), and so are steps
under Dagster's own executors. That goes where outputs go: into a folder, or a bucket of S3.

This module knows private parts of Dagster's managers; the contract is
tests/dynamic_jobs/test_compute_logs.py.
"""

import os
import secrets
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from dagster import (
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    EventLogEntry,
    Field,
    StringSource,
)
from dagster._config.config_schema import UserConfigSchema
from dagster._core.events import ComputeLogsCaptureData
from dagster._core.storage.cloud_storage_compute_log_manager import (
    PollingComputeLogSubscriptionManager,
)
from dagster._core.storage.compute_log_manager import (
    CapturedLogSubscription,
    ComputeIOType,
    ComputeLogManager,
)
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._serdes import ConfigurableClass, ConfigurableClassData, deserialize_value
from sqlalchemy import text

from foundation.object_store import check_url

_Manager: Any = object
"""One of Dagster's, as its managers are typed too narrowly to be mixed with."""

FOLDER: Final = "compute_logs"
"""Where the object store has them: the beginning of their keys."""
_STORAGE: Final = "storage"
"""What Dagster's manager of a bucket puts after that."""
_NAMESPACE: Final = "compute_logs"
"""The second name of a run's log keys: ``[run id, "compute_logs", step or process]``."""
_UPLOAD_SECONDS: Final = 30
_TAIL_WAIT: Final = ("DAGSTER_COMPUTE_LOG_TAIL_WAIT_AFTER_FINISH", "0.1")
"""Dagster's own way to have the last lines come out: it kills the ``tail`` that passes them on. In
seconds, for each of two."""
_CLIENT: Final = "_s3_session"
_PAGE: Final = 1_000
_LEVELS: Final = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}

LINES: Final = text("""
SELECT id, event FROM event_logs
WHERE run_id = :run_id AND step_key = :step AND dagster_event_type IS NULL AND id > :after
ORDER BY id LIMIT :limit
""")


def logs_folder(run_id: str) -> str:
    """Where the object store has what was captured of a run: the beginning of the keys."""
    return f"{FOLDER}/{_STORAGE}/{run_id}"


class GraphwrightComputeLogs(ComputeLogManager[Any], ConfigurableClass):
    """What ``dagster.yaml`` names: makes the manager that fits ``object_store``, a store's URL."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {"object_store": Field(StringSource)}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Any:
        return compute_logs(config_value["object_store"], inst_data)


def compute_logs(
    object_store: str, inst_data: ConfigurableClassData | None = None
) -> ComputeLogManager[Any]:
    """Raises ValueError for what is no store's URL; nothing is opened or made before its use."""
    parts = check_url(object_store)
    if parts.scheme == "file":
        folder = Path(unquote(parts.path)) / FOLDER / _STORAGE
        return FolderComputeLogs(str(folder), inst_data=inst_data)
    return _bucket_logs(object_store, inst_data)


class NodeLines(_Manager):
    """Before one of Dagster's managers: a node's log lines, where nothing was captured.

    Their offset is the id of the last event that was read.
    """

    _polling: PollingComputeLogSubscriptionManager | None = None

    def get_log_data_for_type(
        self,
        log_key: Sequence[str],
        io_type: ComputeIOType,
        offset: int | None = 0,
        max_bytes: int | None = None,
    ) -> tuple[bytes | None, int]:
        after = offset or 0
        manager: Any = super()
        kept: tuple[bytes | None, int] = manager.get_log_data_for_type(
            log_key, io_type, after, max_bytes
        )
        if kept[0] is not None or io_type is ComputeIOType.STDOUT or not _is_of_run(log_key):
            return kept
        return self._lines(log_key[0], log_key[2], after, max_bytes)

    def is_capture_complete(self, log_key: Sequence[str]) -> bool:
        if super().is_capture_complete(log_key):
            return True
        # Of a run without a capture, and of a process that was killed in the middle of it.
        run = self._instance.get_run_by_id(log_key[0]) if _is_of_run(log_key) else None
        return run is not None and run.is_finished

    @contextmanager
    def open_log_stream(
        self, log_key: Sequence[str], io_type: ComputeIOType
    ) -> Generator[IO[str] | None]:
        """Nothing: this is for what sensors and schedules log. A tick holds all that ours say, and
        nobody would remove a file for each."""
        yield None

    def subscribe(
        self, log_key: Sequence[str], cursor: str | None = None
    ) -> CapturedLogSubscription:
        if self._polling is None:
            self._polling = PollingComputeLogSubscriptionManager(self)
        subscription = CapturedLogSubscription(self, log_key, cursor)
        self._polling.add_subscription(subscription)
        return subscription

    def unsubscribe(self, subscription: CapturedLogSubscription) -> None:
        if self._polling is not None:
            self._polling.remove_subscription(subscription)

    def dispose(self) -> None:
        if self._polling is not None:
            self._polling.dispose()
        super().dispose()

    def _lines(
        self, run_id: str, step: str, after: int, max_bytes: int | None
    ) -> tuple[bytes | None, int]:
        storage: Any = self._instance.event_log_storage
        found = bytearray()
        with storage.run_connection(run_id) as connection:
            while True:
                given = {"run_id": run_id, "step": step, "after": after, "limit": _PAGE}
                rows = connection.execute(LINES, given).fetchall()
                for event_id, event in rows:
                    found += _line(deserialize_value(event, EventLogEntry))
                    after = event_id
                    if max_bytes is not None and len(found) >= max_bytes:
                        return bytes(found), after
                if len(rows) < _PAGE:
                    return bytes(found) or None, after


def _is_of_run(log_key: Sequence[str]) -> bool:
    return len(log_key) == 3 and log_key[1] == _NAMESPACE


def _line(entry: EventLogEntry) -> bytes:
    at = datetime.fromtimestamp(entry.timestamp, UTC).isoformat(" ", "milliseconds")
    level: Any = entry.level
    line = f"{at} {_LEVELS.get(level, 'INFO')} {entry.user_message}\n"
    return line.encode("utf-8", "replace")


class FolderComputeLogs(NodeLines, LocalComputeLogManager):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Captured logs as files below the folder of the object store."""


def _bucket_logs(url: str, inst_data: ConfigurableClassData | None) -> ComputeLogManager[Any]:
    from dagster_aws.s3.compute_log_manager import S3ComputeLogManager

    from foundation.object_store.s3 import s3_client  # boto3 takes 0.2 s

    class BucketComputeLogs(NodeLines, S3ComputeLogManager):
        """Captured logs as objects beside the large outputs."""

    parts = urlsplit(url)
    options = parse_qs(parts.query)
    endpoint, region = (options.get(name, [None])[0] for name in ("endpoint", "region"))
    manager = BucketComputeLogs(
        bucket=parts.netloc,
        prefix="/".join((unquote(parts.path).strip("/"), FOLDER)),
        endpoint_url=endpoint,
        region=region,
        upload_interval=_UPLOAD_SECONDS,
        inst_data=inst_data,
    )
    # Its own knows no region, and sends checksums that not every server reads.
    setattr(manager, _CLIENT, s3_client(endpoint, region))
    return manager


@contextmanager
def captured(instance: DagsterInstance, run: DagsterRun) -> Generator[None]:
    """Capture what this process prints, for the one run that it executes; say so in its log.

    The file descriptors 1 and 2 are turned to files meanwhile, and their contents still come out
    where they did before. Starts processes, and blocks, at both ends.
    """
    os.environ.setdefault(*_TAIL_WAIT)
    name = f"process-{secrets.token_hex(4)}"
    manager = instance.compute_log_manager
    with manager.capture_logs(manager.build_log_key_for_run(run.run_id, name)):
        event = DagsterEvent(
            event_type_value=DagsterEventType.LOGS_CAPTURED.value,
            job_name=run.job_name,
            message=f"Capturing logs for process (pid: {os.getpid()}).",
            pid=os.getpid(),
            event_specific_data=ComputeLogsCaptureData(file_key=name, step_keys=[]),
        )
        instance.report_dagster_event(event, run.run_id)
        yield
