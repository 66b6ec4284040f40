"""``member``: what users of an OIDC provider may do in the tenant."""

from typing import Annotated, Any

import typer

from graphwright.commands.session import session

app = typer.Typer(
    help="List, set and remove members: users of an OIDC provider.", no_args_is_help=True
)

Subject = Annotated[str, typer.Argument(help="The user, as `sub` of the provider's tokens.")]


@app.command("list")
def list_members(context: typer.Context) -> None:
    """List the tenant's members with their roles."""
    now = session(context)
    with now.client() as client:
        now.terminal.rows(client.members.list(), ("subject", "role", "created_at", "created_by"))


@app.command("set")
def set_member(
    context: typer.Context,
    subject: Subject,
    role: Annotated[str, typer.Argument(help="viewer, operator, editor or admin.")],
) -> None:
    """Add a member, or give one another role."""
    now = session(context)
    given: Any = role  # the API says which roles there are
    with now.client() as client:
        member, created = client.members.set(subject, given)
    now.terminal.note("the member is new" if created else "the member was there already")
    now.terminal.data(member)


@app.command()
def remove(context: typer.Context, subject: Subject) -> None:
    """Remove a member. The last admin stays."""
    now = session(context)
    with now.client() as client:
        client.members.remove(subject)
    now.terminal.data({"subject": subject, "removed": True})
