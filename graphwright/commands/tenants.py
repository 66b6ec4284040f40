"""``tenant``: each tenant's share of the workers, its quotas, how long its runs are kept, and where
they may be executed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foundation.errors import Fault, Invalid
from graphwright.commands.session import session

if TYPE_CHECKING:
    from foundation.ids import TenantId
    from graph_defs.placement import Isolation
    from graph_defs.placement_policy import PlacementPolicy

app = typer.Typer(
    help="Shares and quotas of tenants; asks the database, not the API.", no_args_is_help=True
)

_NONE = "none"
_ALL = "*"
_MOST = 2**31 - 1
_COLUMNS = (
    "tenant", "weight", "max_running", "max_queued", "max_runs_per_day", "max_graphs",
    "retention_days", "isolations",
)  # fmt: skip

Tenant = Annotated[
    str, typer.Argument(help="The tenant, or '*' for all that have no value of their own.")
]
Bound = Annotated[str | None, typer.Option(metavar="N|none")]


@app.command("list")
def list_tenants(context: typer.Context) -> None:
    """List the tenants and what holds for each."""
    from graph_defs.tenants import list_policies
    from graphwright.access import database

    page = 500
    with database(session(context).settings()) as connection:
        after, terminal = "", session(context).terminal
        while policies := list_policies(connection, after, page):
            terminal.rows([policy.as_dict() for policy in policies], _COLUMNS)
            after = policies[-1].tenant


@app.command()
def show(context: typer.Context, tenant: Tenant) -> None:
    """Print what holds for a tenant, as JSON; null is no bound."""
    from graph_defs.tenants import read_policy
    from graphwright.access import database

    with database(session(context).settings()) as connection:
        policy = read_policy(connection, _name(tenant), effective=True)
    session(context).terminal.data(policy.as_dict())


@app.command("set")
def set_policy(
    context: typer.Context,
    tenant: Tenant,
    weight: Bound = None,
    max_running: Bound = None,
    max_queued: Bound = None,
    max_runs_per_day: Bound = None,
    max_graphs: Bound = None,
    retention_days: Bound = None,
    isolation: Annotated[
        list[str] | None,
        typer.Option(metavar="warm|process|docker|kubernetes|none", help="Again for each."),
    ] = None,
    placement: Annotated[
        str | None, typer.Option(metavar="FILE|none", help="A YAML or JSON file; - is stdin.")
    ] = None,
) -> None:
    """Set some of a tenant's values, and print what holds then; `none`: give back to the default.

    weight: runs started in a round in which every tenant with work has its turn.  max-running: runs
    under way at once.  max-queued: runs on the queue.  max-runs-per-day: runs accepted a day, in
    UTC.  max-graphs: graphs stored.  retention-days: days that a run is kept after its end.
    isolation: where runs may be executed.  placement: what graphs may ask for there
    (docs/placement.md).
    """
    from graph_defs.tenants import change_policy, read_policy
    from graphwright.access import database

    given = {
        "weight": weight,
        "max_running": max_running,
        "max_queued": max_queued,
        "max_runs_per_day": max_runs_per_day,
        "max_graphs": max_graphs,
        "retention_days": retention_days,
    }
    if not any((*given.values(), isolation, placement)):
        raise typer.BadParameter("name at least one value to set")
    changes: dict[str, Any] = {
        **_numbers({name: text for name, text in given.items() if text is not None})
    }
    if isolation:
        changes["isolations"] = _isolations(isolation)
    if placement is not None:
        changes["placement"] = _placement(placement)
    with database(session(context).settings()) as connection:
        change_policy(connection, _name(tenant), changes)
        policy = read_policy(connection, _name(tenant), effective=True)
    session(context).terminal.data(policy.as_dict())


def _numbers(given: dict[str, str]) -> dict[str, int | None]:
    bounds: dict[str, tuple[int, int]] = {"weight": (1, 1_000), "retention_days": (1, _MOST)}
    faults: list[Fault] = []
    for name, text in given.items():
        low, high = bounds.get(name, (0, _MOST))
        if text != _NONE and not (text.isdecimal() and low <= int(text) <= high):
            option = f"--{name.replace('_', '-')}"
            fault = Fault(option, "bad_bound", f"{text!r} is no bound", f"{low} to {high}, or none")
            faults.append(fault)
    if faults:
        raise Invalid("The tenant was not changed.", faults)
    return {name: None if text == _NONE else int(text) for name, text in given.items()}


def _isolations(given: list[str]) -> "tuple[Isolation, ...] | None":
    from graph_defs.placement import ISOLATIONS

    if given == [_NONE]:
        return None
    if unknown := sorted(set(given) - set(ISOLATIONS)):
        fault = Fault(
            "--isolation", "bad_isolation", f"there is no {unknown[0]!r}", ", ".join(ISOLATIONS)
        )
        raise Invalid("The tenant was not changed.", [fault])
    return tuple(each for each in ISOLATIONS if each in given)


def _placement(given: str) -> "PlacementPolicy | None":
    from pydantic import ValidationError

    from foundation.settings import Limits
    from graph_defs.parsing import parse
    from graph_defs.placement_policy import PlacementPolicy

    if given == _NONE:
        return None
    text = sys.stdin.buffer.read() if given == "-" else Path(given).read_bytes()
    try:
        return PlacementPolicy.model_validate(parse(text, Limits()))
    except ValidationError as error:
        faults = [
            Fault("".join(f"/{part}" for part in each["loc"]), "bad_policy", each["msg"])
            for each in error.errors()
        ]
        raise Invalid("The tenant was not changed.", faults) from error


def _name(tenant: str) -> "TenantId":
    from graph_defs.tenants import DEFAULT
    from live_api.identity import check_tenant

    return DEFAULT if tenant == _ALL else check_tenant(tenant)
