"""From a stored version to a launchable one: Dagster needs its job's and its plan's snapshots.

Only making them takes a compiled job. Which ones they are is noted in Dagster's key-value store, so
that other processes, and this one after a restart, need not compile a graph to start a run of it.
"""

import asyncio
from importlib.metadata import version as release_of
from typing import Final, TypeAlias

from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.creating.launchable import Launchable
from dynamic_jobs.storage import GraphwrightStorage
from foundation.ids import GraphVersionId
from foundation.recent import Recent
from graph_defs.versions import GraphVersion

KEPT: Final = 4_096
"""Versions that a process keeps launchable: 5 kB each, and the schema of their params, which is
part of a document and so at most ``max_document_bytes``."""

# Another release may compile the same version to another job.
_KEY: Final = (
    f"graphwright {release_of('graphwright')}, dagster {release_of('dagster')}, snapshots of "
)

_Identity: TypeAlias = tuple[GraphVersionId, str]
"""A version, and the name of its graph."""


class Readying:
    """Makes versions launchable, each once at a time and off the event loop."""

    def __init__(self, storage: GraphwrightStorage, compiler: Compiler, code_port: int) -> None:
        self._storage = storage
        self._compiler = compiler
        self._code_port = code_port
        self._kept = Recent[_Identity, Launchable](KEPT)
        self._under_way: dict[_Identity, asyncio.Task[Launchable]] = {}

    async def ready(self, version: GraphVersion) -> Launchable:
        """The version, launchable.

        Raises ``NodeTypeUnavailable`` where this process lacks one of its node types.
        """
        identity = version.graph_version_id, version.name
        launchable = self._kept.get(identity)
        if launchable is not None:
            return launchable
        task = self._under_way.get(identity)
        if task is None:
            task = asyncio.create_task(self._ready(identity, version))
            self._under_way[identity] = task
        return await asyncio.shield(task)  # others may wait for it too

    async def _ready(self, identity: _Identity, version: GraphVersion) -> Launchable:
        try:
            launchable = await asyncio.to_thread(self._make, version)
            self._kept.keep(identity, launchable)
            return launchable
        finally:
            del self._under_way[identity]

    def _make(self, version: GraphVersion) -> Launchable:
        return Launchable.of(version, self._snapshot_ids(version), self._code_port)

    def _snapshot_ids(self, version: GraphVersion) -> tuple[str, str]:
        key = _KEY + version.graph_version_id
        known = self._storage.runs.get_cursor_values({key}).get(key)
        if known is not None:
            job_snapshot_id, plan_snapshot_id = known.split()
            return job_snapshot_id, plan_snapshot_id
        compiled = self._compiler.compile(version)
        job, plan = compiled.stored_job_snapshot, compiled.stored_plan_snapshot
        self._storage.runs.store_snapshots(
            key, (job.snapshot_id, job.body), (plan.snapshot_id, plan.body)
        )
        return job.snapshot_id, plan.snapshot_id
