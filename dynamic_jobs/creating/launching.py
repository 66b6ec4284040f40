"""Accepting triggers: from a graph and an input to a durable, queued run.

A process remembers which version of a graph it saw published. The statement that makes the run also
checks that it still is, so that a trigger of a known graph is one statement in all, and reads
neither graph nor document.
"""

from dataclasses import dataclass
from datetime import datetime

from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.creating.launchable import Launchable
from dynamic_jobs.creating.new_run import NewRun
from dynamic_jobs.creating.readying import KEPT, Readying
from dynamic_jobs.creating.run_batches import RunBatches
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.foreign_json import reserved_key_faults
from dynamic_jobs.storage import GraphwrightStorage
from foundation.database import AsyncPool
from foundation.errors import Invalid, TooLarge
from foundation.ids import RunId, TenantId, new_id
from foundation.recent import Recent
from graph_defs.json_values import JsonObject
from graph_defs.store import GraphStore
from graph_defs.versions import GraphVersion


@dataclass(frozen=True, slots=True)
class Trigger:
    """What starts a run, and how. ``params`` are as given, and not checked yet."""

    params: JsonObject
    cause: JsonObject
    """``{"type": "rest", …}``; expressions see it as ``trigger``."""
    author: str
    priority: int = 0
    not_before: datetime | None = None
    live: bool = True


class RunCreator:
    """Creates runs. One per event loop; it shares its process's compiler and Dagster storage."""

    def __init__(
        self, pool: AsyncPool, storage: GraphwrightStorage, compiler: Compiler, runtime: NodeRuntime
    ) -> None:
        self._graphs = GraphStore(pool)
        self._batches = RunBatches(pool)
        self._limits = runtime.limits
        self._versions = Readying(storage, compiler, runtime.settings.code_port)
        self._published = Recent[tuple[TenantId, str], Launchable](KEPT)
        """By id or name of a graph, the version that was published when last seen."""

    async def start(self, tenant: TenantId, graph: str, trigger: Trigger) -> RunId:
        """Queue a run of the published version of the graph of this id or name.

        When this returns, the run is durable.

        Raises:
            NotFound: there is no such graph.
            Invalid, TooLarge: ``params`` do not fit the graph's schema; the faults' pointers are
                below ``/params``.
            InDoubt: the connection to the database broke, and the run may be there or not.
        """
        remembered = self._published.get((tenant, graph))
        if remembered is not None:
            try:
                run_id = await self._create(remembered, trigger, if_published=True)
            except (Invalid, TooLarge):
                run_id = None  # perhaps the version that is published by now takes them
            if run_id is not None:
                return run_id
        version = await self._graphs.published(tenant, graph)
        launchable = await self._versions.ready(version)
        self._published.keep((tenant, graph), launchable)
        return await self._create_any(launchable, trigger)

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
        """Queue a run of this version, published or not; else as :meth:`start`."""
        launchable = await self._versions.ready(version)
        wanted = Trigger(params, trigger, author, priority, not_before, live)
        return await self._create_any(launchable, wanted)

    async def close(self) -> None:
        """Wait until what was accepted is written."""
        await self._batches.close()

    async def _create_any(self, launchable: Launchable, trigger: Trigger) -> RunId:
        run_id = await self._create(launchable, trigger, if_published=False)
        assert run_id is not None
        return run_id

    async def _create(
        self, launchable: Launchable, trigger: Trigger, *, if_published: bool
    ) -> RunId | None:
        bound = launchable.params.bind(trigger.params, self._limits)
        if faults := reserved_key_faults(bound, ("params",)):
            raise Invalid("The params hold reserved names.", faults)
        new = NewRun(
            RunId(new_id()),
            bound,
            trigger.cause,
            trigger.author,
            trigger.priority,
            trigger.not_before,
            trigger.live,
        )
        row = launchable.row(new, if_published=if_published)
        return new.run_id if await self._batches.create(new.run_id, row) else None
