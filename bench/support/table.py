"""The report as a table: for a terminal, and as the page ``docs/benchmarks.md``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.table import Table

from bench.support.figures import Figure, shown
from bench.support.machine import ROOT
from bench.support.report import AimRow, Report, Result

PAGE: Final = ROOT / "docs" / "benchmarks.md"
_HEAD: Final = ("Question", "Ours", "Aim", "Met", "Peers (times ours)")
_PLATE: Final = """\
# Benchmarks

Written by `make bench` from `bench/results/latest.json`: change neither by hand. Each figure is a
median, or the quantile that it names, over all rounds; in parentheses the lowest and the highest
sample and how many there were. Rounds are interleaved: ours, then each peer, then ours again, with
every engine but the one that is measured stopped. A peer's figure is followed by its ratio to ours.

- Measured on {measured_on}, commit `{commit}`.
- {cpu}, {cores} cores, {memory} GiB, {system}, Python {python}; everything on this one machine,
  load generator included.
- {postgres}, on {disk}. Each engine has a database of its own in this server.

{table}
"""


def terminal_table(results: Sequence[Result]) -> Table:
    """For people: one row per question."""
    table = Table(*_HEAD, show_lines=True)
    for result in results:
        table.add_row(*("\n".join(cell) for cell in _cells(result)))
    return table


def page(report: Report) -> str:
    """``docs/benchmarks.md``."""
    machine = report.machine
    rows = [_HEAD, ("---",) * len(_HEAD)]
    rows += [
        tuple("<br>".join(cell).replace("|", "\\|") for cell in _cells(each))
        for each in report.results
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    text = _PLATE.format(
        measured_on=report.measured_on,
        commit=report.commit,
        cpu=machine.cpu,
        cores=machine.cores,
        memory=machine.memory_gib,
        system=machine.system,
        python=machine.python,
        postgres=machine.postgres,
        disk=machine.disk,
        table=table,
    )
    if report.engines:
        how = "\n".join(f"- **{name}**: {text}" for name, text in sorted(report.engines.items()))
        text += f"\n## How the engines were set up\n\n{how}\n"
    return text


def write_page(report: Report, path: Path = PAGE) -> None:
    path.write_text(page(report), "utf-8")


def _cells(result: Result) -> tuple[list[str], ...]:
    title = [result.title, f"`{result.question}`"]
    ours = [f"failed: {result.failed}"] if result.failed else _figures(result.ours)
    return title, ours, [_aim(aim) for aim in result.aim], _met(result), _peers(result)


def _met(result: Result) -> list[str]:
    return ["yes" if aim.met else "no" for aim in result.aim]


def _figures(figures: dict[str, Figure]) -> list[str]:
    return [f"{name} {_figure(figure)}" for name, figure in figures.items()]


def _figure(figure: Figure) -> str:
    text = f"{shown(figure.value)} {figure.unit}".strip()
    if figure.count == 1:
        return text
    return f"{text} ({shown(figure.low)} to {shown(figure.high)}, {figure.count})"


def _aim(aim: AimRow) -> str:
    how = "≥" if aim.at_least else "≤"
    return f"{aim.figure} {how} {shown(aim.bound)} {aim.unit}".strip()


def _peers(result: Result) -> list[str]:
    lines: list[str] = []
    main = result.aim[0].figure
    for peer, found in result.peers.items():
        if isinstance(found, str):
            lines.append(f"{peer}: {found}")
        else:
            ratio = f" × {shown(result.ratios[peer])}" if peer in result.ratios else ""
            lines.append(f"{peer} {_figure(found[main])}{ratio}")
    return lines or ["–"]
