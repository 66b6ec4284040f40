"""Accepting triggers: from a published version and an input to a durable, queued run."""

import asyncio
from datetime import datetime
from weakref import WeakValueDictionary

from dynamic_jobs.compiler import CompiledGraph, Compiler
from dynamic_jobs.foreign_json import reserved_key_faults
from dynamic_jobs.new_run import CREATE, NewRun, values_of
from dynamic_jobs.runtime import NodeRuntime
from dynamic_jobs.storage import GraphwrightStorage
from foundation.database import AsyncPool
from foundation.errors import Invalid
from foundation.ids import RunId, new_id
from graph_defs.json_values import JsonObject
from graph_defs.params import bind_params
from graph_defs.versions import GraphVersion


class RunCreator:
    """Creates runs. One per process; it shares the process's compiler and Dagster storage."""

    def __init__(
        self, pool: AsyncPool, storage: GraphwrightStorage, compiler: Compiler, runtime: NodeRuntime
    ) -> None:
        self._pool = pool
        self._storage = storage
        self._compiler = compiler
        self._runtime = runtime
        self._ready: WeakValueDictionary[str, CompiledGraph] = WeakValueDictionary()
        """Compiled, and with its snapshots stored; the compiler decides how long it is kept."""

    async def create(
        self,
        version: GraphVersion,
        params: JsonObject,
        trigger: JsonObject,
        author: str,
        *,
        priority: int = 0,
        not_before: datetime | None = None,
        live: bool = True,
    ) -> RunId:
        """Queue a run of this version. When this returns, the run is durable.

        ``trigger`` is ``{"type": "rest", …}``; expressions see it as ``trigger``.

        Raises:
            Invalid: ``params`` do not fit the graph's schema; its faults point below ``/params``.
        """
        compiled = await self._compiled(version)
        bound = bind_params(compiled.graph.document.params, params, self._runtime.limits)
        if faults := reserved_key_faults(bound, ("params",)):
            raise Invalid("The params hold reserved names.", faults)
        new = NewRun(RunId(new_id()), bound, trigger, author, priority, not_before, live)
        values = values_of(new, compiled, self._runtime.settings.code_port)
        async with self._pool.connection() as connection:
            await connection.execute(CREATE, values)
        return new.run_id

    async def _compiled(self, version: GraphVersion) -> CompiledGraph:
        compiled = self._ready.get(version.graph_version_id)
        if compiled is None:
            compiled = await asyncio.to_thread(self._prepare, version)
            self._ready[version.graph_version_id] = compiled
        return compiled

    def _prepare(self, version: GraphVersion) -> CompiledGraph:
        compiled = self._compiler.compile(version)
        self._storage.runs.ensure_snapshots(compiled.job.get_job_snapshot(), compiled.plan_snapshot)
        return compiled
