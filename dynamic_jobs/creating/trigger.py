"""What starts a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from foundation.ids import NodeId, RunId
from graph_defs.json_values import JsonObject


@dataclass(frozen=True, slots=True)
class Parent:
    """The run that a new one repeats, and what it repeats of it."""

    run_id: RunId
    root_run_id: RunId
    """The first of them, where this one is a repetition itself."""
    steps: tuple[NodeId, ...] | None = None
    """The nodes that run again; None for all. The others keep their outputs."""
    from_failure: bool = False
    """Whether they are those that had not succeeded."""
    plan_snapshot_id: str | None = None
    """Dagster's plan of these steps alone, where they are not all."""


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
    idempotency_key: str | None = None
    """Triggers of a tenant with the same key are one run."""
    parent: Parent | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    """Dagster's tags of the run beside ours."""
    traceparent: str | None = None
    """Where in a trace it was asked for, as W3C's header has it."""
    run_id: RunId | None = None
    """The run's id, where that follows from its cause, so that there cannot be two."""


@dataclass(frozen=True, slots=True)
class Started:
    """The run of a trigger; ``replayed`` if an earlier trigger with the same key had started it."""

    run_id: RunId
    replayed: bool = False
