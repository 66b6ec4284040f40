"""``--json``, which every command has."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from graphwright.commands.session import Session


def _set(context: typer.Context, asked: bool) -> None:
    found = context.find_root().obj
    if asked and isinstance(found, Session):  # there is none while the shell completes
        found.terminal.json = True


_carrier = typer.Typer(add_completion=False)


@_carrier.command()
def _options(
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            callback=_set,
            expose_value=False,
            help="JSON for people too: an object, or one a line.",
        ),
    ] = False,
) -> None: ...


(_JSON,) = get_command(_carrier).params


class JsonGroup(TyperGroup):
    """A group of commands, each of which takes ``--json`` beside its own options."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None and not any("--json" in each.opts for each in command.params):
            command.params.append(_JSON)
        return command
