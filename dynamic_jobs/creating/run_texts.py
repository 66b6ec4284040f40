"""Dagster's run and its first event, as texts with gaps where runs differ.

Dagster takes 100 µs to serialize both, so it does that once for all runs of a process.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import orjson
from dagster._serdes import serialize_value

from dynamic_jobs.creating.new_run import dagster_run, enqueued
from foundation.ids import GraphId, GraphVersionId, TenantId
from graph_defs.versions import GraphVersion

_SOME_VERSION: Final = GraphVersion(
    graph_version_id=GraphVersionId("@version@"),
    graph_id=GraphId("@graph@"),
    tenant=TenantId("@tenant@"),
    name="@name@",
    version=1,
    fingerprint="",
    document={},
    node_types={},
    author="",
    created_at=datetime.fromtimestamp(0, UTC),
)
_AT: Final = 1234567890.125

# By what Dagster writes where runs differ, what is to be there. Nothing else in the texts looks
# like that: the rest is Dagster's, our interpreter's path and the code server's host.
_OF_BOTH: Final = {'"@run@"': "run_id", '"@name@__@graph@"': "job_name"}
_OF_RUN: Final = {
    **_OF_BOTH,
    '"@version@"': "graph_version_id",
    '"@tenant@"': "tenant",
    '"@job@"': "job_snapshot_id",
    '"@plan@"': "plan_snapshot_id",
    '"@params@"': "params",
    '{"@tags@": ""}': "tags",
}
_OF_EVENT: Final = {**_OF_BOTH, repr(_AT): "at"}


class RunTexts:
    """The texts of the runs of one code server."""

    def __init__(self, code_server: tuple[str, int]) -> None:
        some = dagster_run("@run@", _SOME_VERSION, "@params@", {}, ("@job@", "@plan@"), code_server)
        stored = some.tags_for_storage()
        self.more_tags = {key: value for key, value in stored.items() if key not in some.tags}
        """What the tags of each run are stored with, besides its own."""
        self._run = _Text(serialize_value(some.with_tags({"@tags@": ""})), _OF_RUN)
        self._event = _Text(serialize_value(enqueued("@run@", some.job_name, _AT)), _OF_EVENT)

    def run(self, values: Mapping[str, object]) -> str:
        """Dagster's run. ``values`` has what is to be in the gaps; ``params`` as JSON text.

        Raises TypeError where a text is no Unicode.
        """
        return self._run.filled(values)

    def event(self, values: Mapping[str, object]) -> str:
        """The event that it was queued ``at``, a Unix time; else as :meth:`run`."""
        return self._event.filled(values)


class _Text:
    """A text that is split once, so that what is filled in is never searched for gaps."""

    def __init__(self, text: str, gaps: Mapping[str, str]) -> None:
        self._gaps = gaps
        self._parts = re.split(f"({'|'.join(map(re.escape, gaps))})", text)

    def filled(self, values: Mapping[str, object]) -> str:
        parts: list[str] = []
        for part in self._parts:
            gap = self._gaps.get(part)
            parts.append(part if gap is None else _json(gap, values[gap]))
        return "".join(parts)


def _json(gap: str, value: object) -> str:
    return str(value) if gap == "params" else orjson.dumps(value).decode()
