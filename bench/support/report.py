"""The results: ``bench/results/latest.json``, and how a run adds to what is there."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from bench.support.figures import Figure, significant
from bench.support.machine import ROOT, Machine
from bench.support.question import ORDER, Answer, Question

LATEST: Final = ROOT / "bench" / "results" / "latest.json"


class AimRow(BaseModel):
    """What a figure of ours shall be, and whether it is."""

    model_config = ConfigDict(frozen=True)

    figure: str
    bound: float
    unit: str
    at_least: bool
    met: bool


class Result(BaseModel):
    """One question's answer. ``failed`` says why there is none."""

    model_config = ConfigDict(frozen=True)

    question: str
    title: str
    ours: dict[str, Figure] = Field(default_factory=dict)
    peers: dict[str, dict[str, Figure] | str] = Field(default_factory=dict)
    """By engine: its figures, or why there are none."""
    ratios: dict[str, float] = Field(default_factory=dict)
    """Each peer's figure of the first aim, divided by ours."""
    aim: list[AimRow]
    met: bool
    failed: str = ""


class Report(BaseModel):
    """What one state of the code did on one machine."""

    model_config = ConfigDict(frozen=True)

    machine: Machine
    commit: str
    measured_on: date
    engines: dict[str, str] = Field(default_factory=dict)
    """How each engine that was asked was set up."""
    results: list[Result]


def result_of(name: str, question: Question, answer: Answer | str) -> Result:
    """The row of a question; an answer that is a text says why there is none."""
    ours = {} if isinstance(answer, str) else dict(answer.ours)
    none: dict[str, Mapping[str, Figure] | str] = {}
    peers = none if isinstance(answer, str) else answer.peers
    aims = [
        AimRow(
            figure=aim.figure,
            bound=aim.bound,
            unit=aim.unit,
            at_least=aim.at_least,
            met=aim.met_by(ours),
        )
        for aim in question.aims
    ]
    return Result(
        question=name,
        title=question.title,
        ours=ours,
        peers={peer: _copy(found) for peer, found in peers.items()},
        ratios=_ratios(question.aims[0].figure, ours, peers),
        aim=aims,
        met=all(aim.met for aim in aims),
        failed=answer if isinstance(answer, str) else "",
    )


def _copy(found: Mapping[str, Figure] | str) -> dict[str, Figure] | str:
    return found if isinstance(found, str) else dict(found)


def _ratios(
    main: str, ours: Mapping[str, Figure], peers: Mapping[str, Mapping[str, Figure] | str]
) -> dict[str, float]:
    if main not in ours or not ours[main].value:
        return {}
    return {
        peer: significant(found[main].value / ours[main].value)
        for peer, found in peers.items()
        if not isinstance(found, str) and main in found
    }


def merged(new: Report, old: Report | None) -> tuple[Report, str]:
    """``new`` with the other questions' results of ``old``, and what was done, in words.

    Results are only kept beside others of the same machine and the same state of the code.
    """
    asked = {result.question for result in new.results}
    kept: Sequence[Result] = ()
    said = ""
    others = [each for each in old.results if each.question not in asked] if old else []
    if old is not None and others:
        if (old.machine, old.commit) == (new.machine, new.commit):
            kept = others
            said = f"kept {len(others)} earlier results of this commit on this machine"
        else:
            said = f"dropped {len(others)} earlier results: of another commit or machine"
    results = sorted((*new.results, *kept), key=lambda result: ORDER.index(result.question))
    engines = {**(old.engines if old and kept else {}), **new.engines}
    return new.model_copy(update={"results": results, "engines": engines}), said


def read(path: Path = LATEST) -> Report | None:
    return Report.model_validate_json(path.read_bytes()) if path.exists() else None


def write(report: Report, path: Path = LATEST) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(report.model_dump_json(indent=2) + "\n", "utf-8")
