"""What starting a run needs of a graph's version: far less than its document or its job.

Dagster takes 80 µs to serialize a run and its first event. So both are serialized once for each
version, with marks where runs differ.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from dagster._serdes import serialize_value

from dynamic_jobs import naming
from dynamic_jobs.creating.new_run import NewRun, dagster_run, enqueued, run_values, version_values
from graph_defs.params import ParamsSchema
from graph_defs.versions import GraphVersion

# Nothing else in these texts comes from users, but for names, which hold no @.
_RUN: Final = "@run@"
_TRIGGER: Final = "@trigger@"
_PARAMS: Final = "@params@"
_TIME: Final = 1234567890.125


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Launchable:
    """A version whose snapshots Dagster has; immutable and small, so that many can be kept."""

    params: ParamsSchema
    _same: Mapping[str, Any]
    """What rows of its runs have in common."""
    _published: int
    _tags: Mapping[str, str]
    _run_body: str
    _event: str

    @classmethod
    def of(
        cls, version: GraphVersion, snapshot_ids: tuple[str, str], code_port: int
    ) -> "Launchable":
        """``snapshot_ids`` are those of its job and of its plan."""
        tags = {naming.TRIGGER_TAG: _TRIGGER}
        run = dagster_run(_RUN, version, _PARAMS, tags, snapshot_ids, code_port)
        schema = version.document.get("params")
        return cls(
            params=ParamsSchema(schema if isinstance(schema, dict) else None),
            _same={
                **version_values(version),
                "graph": version.name,
                "job_name": run.job_name,
                "job_snapshot_id": snapshot_ids[0],
            },
            _published=version.version,
            _tags=run.tags_for_storage(),
            _run_body=serialize_value(run),
            _event=serialize_value(enqueued(_RUN, run.job_name, _TIME)),
        )

    def row(self, new: NewRun, *, if_published: bool) -> bytes:
        """The new run as JSON, one element of the values of :data:`new_run.CREATE`.

        ``if_published`` makes it conditional on the version's still being the published one.

        Raises:
            TypeError: a text in it is no Unicode, or a number does not fit into 64 bits.
        """
        now = time.time()
        values = run_values(new, now)
        trigger = str(new.trigger["type"])
        run_body = self._run_body.replace(_RUN, new.run_id).replace(_TRIGGER, trigger)
        return orjson.dumps(
            {
                **self._same,
                **values,
                "published": self._published if if_published else None,
                "tags": {**self._tags, naming.TRIGGER_TAG: trigger},
                # The last one, because what users write may hold marks.
                "run_body": run_body.replace(f'"{_PARAMS}"', values["params"]),
                "event": self._event.replace(_RUN, new.run_id).replace(str(_TIME), repr(now)),
            }
        )
