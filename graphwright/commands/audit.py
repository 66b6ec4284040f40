"""``audit``: who did what, when, and from where."""

from itertools import islice
from typing import Annotated

import typer

from graphwright.commands.session import session

app = typer.Typer(help="Read the audit log.", no_args_is_help=True)

_COLUMNS = ("at", "subject", "role", "action", "target", "status", "address")


@app.callback()
def callback() -> None:
    """Read the audit log."""


@app.command("list")
def list_audit(
    context: typer.Context,
    actor: Annotated[str | None, typer.Option(help="Only of this subject.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, say graphs.publish.")] = None,
    after: Annotated[
        str | None, typer.Option(metavar="TIME", help="From then on; RFC 3339 with an offset.")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1)] = 100,
) -> None:
    """List what was changed in the tenant, or was refused, newest first."""
    now = session(context)
    with now.client() as client:
        found = client.audit.list(actor=actor, action=action, after=after)
        now.terminal.rows(islice(found, limit), _COLUMNS)
