"""What one graph, run and stream costs, as measured; kept in ``bench/results/scale.json``."""

from datetime import date
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from bench.support.machine import ROOT

FILE: Final = ROOT / "bench" / "results" / "scale.json"


class Sizes(BaseModel):
    """Bytes a graph, or a run, that stay in one table."""

    model_config = ConfigDict(frozen=True)

    rows: float
    indexes: float

    @property
    def all(self) -> float:
        return self.rows + self.indexes


class Events(BaseModel):
    """Of one run, as the event log has them."""

    model_config = ConfigDict(frozen=True)

    json_bytes: int
    zlib_bytes: int


class Tree(BaseModel):
    """An index into which a run's entries go where its tenant or graph says, not at the end."""

    model_config = ConfigDict(frozen=True)

    places: int
    """Entries of a run that lie apart."""
    pages: float
    """Leaf pages when ``Spread.stored`` runs were stored."""


class Spread(BaseModel):
    """What the log of a run has more where tenants are many and drawn at random."""

    model_config = ConfigDict(frozen=True)

    tenants: int
    stored: int
    runs: int
    """Between two checkpoints."""
    pages: float
    """Whole pages of a run, more than where one tenant has all runs."""
    page_bytes: float
    """Of log, for each of them: free space within it is not logged."""
    compressed_page_bytes: float
    """The same with ``wal_compression``."""
    trees: dict[str, Tree]


class Removal(BaseModel):
    """Of one run among many tenants' when a fifth of all, the oldest, are removed."""

    model_config = ConfigDict(frozen=True)

    runs: int
    events: float
    wal_bytes: float
    wal_pages: float
    """Whole pages among that."""
    vacuum_bytes: float
    """Log of ``VACUUM`` afterwards, behind another checkpoint."""
    vacuum_pages: float
    runs_a_second: float
    """Of the quickest batch: without pauses, commit included."""
    median_runs_a_second: float


class Costs(BaseModel):
    """Seconds are of one core. A run is a chain of ten nodes, started over REST."""

    model_config = ConfigDict(frozen=True)

    cpu: str
    commit: str
    measured_on: date
    graphs: int
    """Stored when ``graph`` was measured."""
    tenants: int
    runs: int
    """Executed when ``cpu_seconds``, ``wal_bytes`` and ``commits`` were measured."""
    document_bytes: int
    graph: dict[str, Sizes]
    """By table."""
    run: dict[str, Sizes]
    """By table; what stays after its end, where tenants are many."""
    events: Events
    cpu_seconds: dict[str, float]
    """A run whose graph is at hand, by role: api, worker, postgres, valkey."""
    first_cpu_seconds: dict[str, float]
    """The first run of a version, which no process has compiled yet."""
    first_run: dict[str, Sizes]
    """By table; what that leaves for good."""
    wal_bytes: float
    """A run, all tables, one tenant, as many runs at once as came."""
    commits: float
    """A run, with the group commits of that load."""
    spread: Spread
    removal: Removal
    removal_compressed: Removal
    """The same with ``wal_compression``."""
    stream_bytes: float
    """Memory of the API, for one SSE client that is connected."""


def read(path: Path = FILE) -> Costs:
    return Costs.model_validate_json(path.read_bytes())


def write(costs: Costs, path: Path = FILE) -> None:
    path.write_text(costs.model_dump_json(indent=1) + "\n")
