"""``doctor``: what is wrong with an installation, and how to mend it."""

from dataclasses import asdict

import typer

from foundation.errors import Invalid
from graphwright.commands.session import session
from graphwright.terminal import DONE, FAILED

app = typer.Typer()

_SIGNS = {
    "ok": "[green]✓[/]",
    "warning": "[yellow]![/]",
    "wrong": "[bold red]✗[/]",
    "skipped": "[dim]-[/]",
}


@app.command()
def doctor(context: typer.Context) -> None:
    """Look the installation over, and say what to do about what is wrong.

    It looks from this machine, with the settings of the state folder and the environment, at the
    database and not through a profile. Exits with 1 when something is wrong.
    """
    from rich.markup import escape

    from graphwright.doctor import examine
    from graphwright.doctor.finding import wrong

    now = session(context)
    terminal = now.terminal
    try:
        findings = examine(now.settings())
    except Invalid as error:
        findings = iter([wrong("settings", fault.message) for fault in error.faults])
    bad = False
    for finding in findings:
        bad = bad or finding.state == "wrong"
        if not terminal.for_people:
            terminal.data(asdict(finding))
            continue
        line = f"{_SIGNS[finding.state]} [bold]{finding.check:<14}[/] {escape(finding.says)}"
        terminal.show(line)
        if finding.mend:
            terminal.show(f"  {'':<14} [yellow]→[/] {escape(finding.mend)}")
    raise typer.Exit(FAILED if bad else DONE)
