"""``token``: a bearer token of this installation at once, and the API keys that log in for one."""

from typing import Annotated, Any

import typer

from graphwright.commands.session import session

app = typer.Typer()

_COLUMNS = (
    "token_id", "name", "prefix", "role", "created_at", "last_used_at", "expires_at", "revoked_at",
)  # fmt: skip

Role = Annotated[str, typer.Option(help="viewer, operator, editor or admin.")]


@app.callback(invoke_without_command=True)
def token(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Made where it is missing.")] = None,
    subject: Annotated[str, typer.Option(help="Who the token stands for.")] = "cli",
    role: Annotated[
        str | None, typer.Option(help="viewer, operator, editor or admin; left out: no bound.")
    ] = None,
    scopes: Annotated[
        str | None, typer.Option(help="Separated by spaces; all of the role when left out.")
    ] = None,
    hours: Annotated[
        float, typer.Option(help="How long it is good for.", min=0.001, max=8760)
    ] = 12.0,
) -> None:
    """Print a bearer token for a tenant, and nothing else; or manage the API keys of a tenant.

    The token is signed here, with the key of the state folder, without the API.
    """
    if context.invoked_subcommand is not None:
        return
    import asyncio

    from graphwright.access import tenant_token

    if tenant is None:
        raise typer.BadParameter("name the tenant", param_hint="--tenant")
    settings = session(context).settings()
    asked = None if scopes is None else scopes.split()
    issued = tenant_token(settings, tenant, subject=subject, role=role, scopes=asked, hours=hours)
    typer.echo(asyncio.run(issued))


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What it is for.")],
    role: Role = "viewer",
    scopes: Annotated[
        str | None, typer.Option(help="Of its role only these; separated by spaces.")
    ] = None,
    expires_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="RFC 3339 with an offset.")
    ] = None,
) -> None:
    """Make an API key and print it: this once. It may do no more than you may."""
    now = session(context)
    given: Any = role  # the API says which roles there are
    with now.client() as client:
        asked = None if scopes is None else scopes.split()
        made = client.tokens.create(name, given, scopes=asked, expires_at=expires_at)
    now.terminal.note("Keep the api_key: it is not shown again.")
    now.terminal.data(made)


@app.command("list")
def list_tokens(context: typer.Context) -> None:
    """List the tenant's API keys, without themselves."""
    now = session(context)
    with now.client() as client:
        now.terminal.rows(client.tokens.list(), _COLUMNS)


@app.command()
def show(
    context: typer.Context, token_id: Annotated[str, typer.Argument(help="Its token_id.")]
) -> None:
    """Print what may be known of an API key."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.tokens.get(token_id))


@app.command()
def revoke(
    context: typer.Context, token_id: Annotated[str, typer.Argument(help="Its token_id.")]
) -> None:
    """End an API key, and the sessions that it has begun."""
    now = session(context)
    with now.client() as client:
        client.tokens.revoke(token_id)
    now.terminal.data({"token_id": token_id, "revoked": True})
