"""What starting a run needs of a graph's version: far less than its document or its job."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
from dagster._core.storage.tags import PARENT_RUN_ID_TAG, RESUME_RETRY_TAG, ROOT_RUN_ID_TAG

from dynamic_jobs import naming
from dynamic_jobs.compiling.compiler import run_tags
from dynamic_jobs.creating.concurrency import GraphConcurrency
from dynamic_jobs.creating.new_run import NewRun, run_values, version_values
from dynamic_jobs.creating.run_texts import RunTexts
from dynamic_jobs.creating.trigger import Parent
from foundation.ids import GraphId
from graph_defs.expressions import Evaluator
from graph_defs.params import ParamsSchema
from graph_defs.versions import GraphVersion


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Launchable:
    """A version whose snapshots Dagster has; immutable and small, so that many can be kept."""

    version: GraphVersion
    params: ParamsSchema
    concurrency: GraphConcurrency | None
    _same: Mapping[str, Any]
    """What rows of its runs have in common."""
    _plan_snapshot_id: str
    _texts: RunTexts

    @classmethod
    def of(
        cls,
        version: GraphVersion,
        snapshot_ids: tuple[str, str],
        texts: RunTexts,
        evaluator: Evaluator,
    ) -> "Launchable":
        """``snapshot_ids`` are those of its job and of its plan."""
        schema = version.document.get("params")
        job_name = naming.job_name(version.name, GraphId(version.graph_id))
        job_snapshot_id, plan_snapshot_id = snapshot_ids
        return cls(
            version=replace(version, document={}),  # it may have megabytes
            params=ParamsSchema(schema if isinstance(schema, dict) else None),
            concurrency=GraphConcurrency.of(version, evaluator),
            _same={
                **version_values(version),
                "graph": version.name,
                "job_name": job_name,
                "job_snapshot_id": job_snapshot_id,
            },
            _plan_snapshot_id=plan_snapshot_id,
            _texts=texts,
        )

    def row(self, new: NewRun, *, if_published: bool) -> bytes:
        """The new run as JSON, one element of the values of :data:`statements.CREATE`.

        ``if_published`` makes it conditional on the version's still being the published one.

        Raises:
            TypeError: a text in it is no Unicode, or a number does not fit into 64 bits.
        """
        now = time.time()
        tags = {**run_tags(self.version), naming.TRIGGER_TAG: str(new.trigger["type"]), **new.tags}
        if new.parent is not None:
            tags |= parent_tags(new.parent)
        row = {**self._same, **run_values(new, now)}
        in_texts = {**row, "plan_snapshot_id": self._plan_snapshot_id, "tags": tags, "at": now}
        run_body = self._texts.run(in_texts)
        if new.parent is not None:
            run_body = _repeating(run_body, new.parent)
        return orjson.dumps(
            {
                **row,
                "published": self.version.version if if_published else None,
                "tags": {**self._texts.more_tags, **tags},
                "run_body": run_body,
                "event": self._texts.event(in_texts),
            }
        )


def parent_tags(parent: Parent) -> dict[str, str]:
    """The tags by which Dagster knows that a run repeats another."""
    return {
        PARENT_RUN_ID_TAG: parent.run_id,
        ROOT_RUN_ID_TAG: parent.root_run_id,
        **({RESUME_RETRY_TAG: "true"} if parent.from_failure else {}),
    }


def _repeating(run_body: str, parent: Parent) -> str:
    """Dagster's run, serialized, as one that repeats another."""
    run = orjson.loads(run_body)
    run["parent_run_id"], run["root_run_id"] = parent.run_id, parent.root_run_id
    if parent.steps is not None:
        run["step_keys_to_execute"] = parent.steps
        run["execution_plan_snapshot_id"] = parent.plan_snapshot_id
    return orjson.dumps(run).decode()
