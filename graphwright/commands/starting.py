"""What the commands that start runs have in common."""

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from graphwright.commands.session import Session

if TYPE_CHECKING:
    from graphwright.client import Client
    from graphwright.client.types import RunState

IdempotencyKey: TypeAlias = Annotated[
    str | None, typer.Option(help="The same key again is the same run.")
]
Watch: TypeAlias = Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end.")]


def tell(now: Session, client: "Client", started: "RunState", *, watch: bool) -> None:
    """Print the run that was started; or follow it, and exit as it ends."""
    if not watch:
        now.terminal.data(started)
        return
    from graphwright.watching import watch as follow

    raise typer.Exit(follow(now.terminal, client, started["run_id"]))
