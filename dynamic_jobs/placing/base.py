"""What a platform is that runs can be placed on: something that starts a process of ours elsewhere.

A worker that has claimed such a run asks the platform to start ``graphwright execute-run`` for it,
and hands the run over. What is started claims the run, and is from then on a worker like any other:
its lease, its events and its cancelling are its own. So a platform knows nothing of how runs end.
"""

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, Protocol, TypeAlias

import sqlalchemy.exc
from dagster import DagsterRun
from dagster_postgres.utils import DagsterPostgresException

from foundation.errors import GraphwrightError
from foundation.ids import GraphId, RunId, TenantId
from graph_defs.placement import Placement
from graph_defs.placement_policy import PlacementPolicy

Condition: TypeAlias = Literal["starting", "running", "finished", "lost", "gone"]
"""Of what was started: it does not run yet; it runs; it ended as it should; it broke, or will never
start; there is no such thing."""


AWAY: Final[tuple[type[Exception], ...]] = (
    OSError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.OperationalError,
    DagsterPostgresException,
)
"""What a launcher of Dagster's raises while a server does not answer: it writes to our database,
too, by Dagster's own connections."""


class PlacementFailed(GraphwrightError):
    """The platform did not start the run."""

    code: ClassVar[str] = "placement_failed"

    def __init__(self, message: str, *, passing: bool = False, hint: str = "", **ids: str) -> None:
        """``passing``: it is tried again, as often as it takes; else the run fails at once."""
        super().__init__(message, hint=hint, retry_after=None, **ids)
        self.passing = passing


class NoSuchPlatform(PlacementFailed):
    """This installation has no such platform."""


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """A run that is to be started elsewhere; what it asks for is within the policy."""

    run: DagsterRun
    tenant: TenantId
    graph_id: GraphId
    graph_name: str
    attempt: int
    """Counts the placings of the run, from 1."""
    resumes: bool
    """It has started before: nodes that have completed are not run again."""
    placement: Placement
    policy: PlacementPolicy

    @property
    def run_id(self) -> RunId:
        return RunId(self.run.run_id)


@dataclass(frozen=True, slots=True)
class Placed:
    """One attempt at a run that was, or was about to be, started on a platform."""

    run_id: RunId
    attempt: int
    where: str
    """What the platform's ``locate`` said."""


@dataclass(frozen=True, slots=True)
class Health:
    """How something that was started is; ``reason`` says in the platform's words why."""

    condition: Condition
    reason: str = ""

    @property
    def there(self) -> bool:
        """It may still work on its run, or begin to."""
        return self.condition in ("starting", "running")


class Platform(Protocol):
    """Starts runs elsewhere. All methods may be called from several threads at once.

    Any of them may raise PlacementFailed. Those of AWAY pass, too; after another exception it is
    asked again, a few times.
    """

    lingers: ClassVar[bool]
    """What has finished stays for a while, for people to look at, and then goes by itself."""

    def locate(self, request: PlacementRequest) -> str:
        """Where the run will be, as a namespace; kept with it, for policies and settings change.

        Does not block.
        """
        ...

    def place(self, request: PlacementRequest) -> None:
        """Start ``graphwright execute-run`` for the run. Blocks until it is asked for, not until it
        runs. Asked for the same attempt again, it starts it once."""
        ...

    def health(self, placed: Placed) -> Health:
        """How what was started is. Blocks."""
        ...

    def remove(self, placed: Placed) -> None:
        """End what was started, gracefully where it runs, and clean it away. Blocks, but not until
        it is gone. May be called again meanwhile, and where there is no such thing."""
        ...


def removed(platform: Platform, placed: Placed) -> bool:
    """Remove what was started; whether it works no more. Where it still ends, call this again: it
    may have been left to end by a process that is gone itself. Blocks, as both methods do."""
    platform.remove(placed)
    return not platform.health(placed).there
