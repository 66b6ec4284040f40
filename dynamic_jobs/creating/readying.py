"""From a stored version to a launchable one: Dagster needs its job's and its plan's snapshots.

Only making them takes a compiled job. Which ones they are is noted in Dagster's key-value store, so
that other processes, and this one after a restart, need not compile a graph to start a run of it.
"""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version as release_of
from typing import Final, TypeAlias

from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.compiling.prepared import NodeTypeUnavailable
from dynamic_jobs.creating.launchable import Launchable
from dynamic_jobs.creating.refusals import NotYet, TakesLong
from dynamic_jobs.creating.run_texts import RunTexts
from dynamic_jobs.storage import GraphwrightStorage
from foundation.errors import GraphwrightError
from foundation.ids import GraphVersionId, NodeId
from foundation.recent import Recent
from graph_defs.expressions import Evaluator
from graph_defs.stored_versions import StoredVersion
from graph_defs.versions import GraphVersion

KEPT: Final = 4_096
"""Versions that a process keeps launchable: 2 kB each, and the schema of their params, which is
part of a document and so at most ``max_document_bytes``."""

# Another release may compile the same version to another job.
_KEY: Final = (
    f"graphwright {release_of('graphwright')}, dagster {release_of('dagster')}, snapshots of "
)

_QUICK_SECONDS: Final = 1.0
_QUICK_NODES: Final = 200

_Identity: TypeAlias = tuple[GraphVersionId, str]
"""A version, and the name of its graph."""


class Readying:
    """Makes versions launchable, each once at a time and off the event loop."""

    def __init__(
        self,
        storage: GraphwrightStorage,
        compiler: Compiler,
        code_server: tuple[str, int],
        evaluator: Evaluator,
    ) -> None:
        self._storage = storage
        self._compiler = compiler
        self._texts = RunTexts(code_server)
        self._evaluator = evaluator
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

    async def ready_many(
        self, versions: Sequence[GraphVersion | StoredVersion], *, quickly: bool
    ) -> dict[GraphVersionId, Launchable | GraphwrightError]:
        """Versions, launchable, or why one is not. What is noted of them is read at once.

        ``quickly``: a large graph that has to be compiled is TakesLong; and once that has taken a
        second, all others that have to be are NotYet.
        """
        ready: dict[GraphVersionId, Launchable | GraphwrightError] = {}
        others: list[GraphVersion | StoredVersion] = []
        for version in versions:
            launchable = self._kept.get((version.graph_version_id, version.name))
            if launchable is None:
                others.append(version)
            else:
                ready[version.graph_version_id] = launchable
        if others:
            made = await asyncio.to_thread(self._make_many, others, quickly=quickly)
            for version, launchable in zip(others, made, strict=True):
                ready[version.graph_version_id] = launchable
                if isinstance(launchable, Launchable):
                    self._kept.keep((version.graph_version_id, version.name), launchable)
        return ready

    async def partial_plan(self, version: GraphVersion, steps: Sequence[NodeId]) -> str:
        """The id of the snapshot of the version's plan with these steps alone, which is stored."""
        return await asyncio.to_thread(self._store_partial_plan, version, steps)

    def _store_partial_plan(self, version: GraphVersion, steps: Sequence[NodeId]) -> str:
        plan = self._compiler.compile(version).partial_plan_snapshot(steps)
        return self._storage.runs.add_execution_plan_snapshot(plan)

    async def _ready(self, identity: _Identity, version: GraphVersion) -> Launchable:
        try:
            launchable = await asyncio.to_thread(self._make, version)
            self._kept.keep(identity, launchable)
            return launchable
        finally:
            del self._under_way[identity]

    def _make(self, version: GraphVersion) -> Launchable:
        (made,) = self._make_many([version], quickly=False)
        if isinstance(made, GraphwrightError):
            raise made
        return made

    def _make_many(
        self, versions: Sequence[GraphVersion | StoredVersion], *, quickly: bool
    ) -> list[Launchable | GraphwrightError]:
        until = math.inf
        known = self._storage.runs.get_cursor_values(
            {_KEY + version.graph_version_id for version in versions}
        )
        made: list[Launchable | GraphwrightError] = []
        for stored in versions:
            # One by one: documents take much memory, and most of each is not kept.
            version = stored if isinstance(stored, GraphVersion) else stored.read()
            is_new = _KEY + version.graph_version_id not in known
            if quickly and is_new and _size(version) > _QUICK_NODES:
                made.append(TakesLong("the graph is large, and has not run before"))
                continue
            if is_new and time.monotonic() > until:
                made.append(NotYet("other graphs are being compiled"))
                continue
            if is_new and quickly:
                # From the first on, which is compiled however slow the server is.
                until = min(until, time.monotonic() + _QUICK_SECONDS)
            try:
                snapshot_ids = self._snapshot_ids(version, known)
            except NodeTypeUnavailable as error:
                made.append(error)
            else:
                made.append(Launchable.of(version, snapshot_ids, self._texts, self._evaluator))
        return made

    def _snapshot_ids(self, version: GraphVersion, noted: Mapping[str, str]) -> tuple[str, str]:
        key = _KEY + version.graph_version_id
        known = noted.get(key)
        if known is not None:
            job_snapshot_id, plan_snapshot_id = known.split()
            return job_snapshot_id, plan_snapshot_id
        compiled = self._compiler.compile(version)
        job, plan = compiled.stored_job_snapshot, compiled.stored_plan_snapshot
        self._storage.runs.store_snapshots(
            key, (job.snapshot_id, job.body), (plan.snapshot_id, plan.body)
        )
        return job.snapshot_id, plan.snapshot_id


def _size(version: GraphVersion) -> int:
    nodes = version.document["nodes"]
    return len(nodes) if isinstance(nodes, dict) else 0
