"""Triggers and notices: that timers can be due, and what their expressions may refer to."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from pydantic import ValidationError

from foundation.errors import Fault
from graph_defs.expressions import Evaluator
from graph_defs.json_values import Json, JsonObject, Path, pointer, strings
from graph_defs.recurrence import BadTimer, recurrence_of
from graph_defs.triggers import TimerTrigger
from graph_defs.validation.outline import Outline
from graph_defs.validation.references import secret_not_allowed

_SEES: Final = frozenset({"trigger", "secrets"})
"""What expressions may name; secrets have a fault of their own."""


def check_triggers(document: Outline, evaluator: Evaluator) -> Iterator[Fault]:
    """Faults of ``triggers`` and ``notify`` beyond those of their fields."""
    for name, trigger in document.triggers.items():
        at: Path = ("triggers", name)
        yield from _check_timer(trigger, at)
        if isinstance(wanted := trigger.get("filter"), str) and wanted:
            yield from _check_filter(wanted, (*at, "filter"), evaluator)
        yield from _check_params(trigger.get("params"), (*at, "params"), evaluator)
    for name, notice in document.notify.items():
        yield from _check_params(notice.get("params"), ("notify", name, "params"), evaluator)


def _check_timer(trigger: JsonObject, at: Path) -> Iterator[Fault]:
    if trigger.get("type") != "timer":
        return
    try:
        recurrence_of(TimerTrigger.model_validate(trigger))
    except ValidationError:
        return  # its fields have faults, which are told already
    except BadTimer as error:
        yield Fault(pointer((*at, error.field)), "bad_timer", error.message, error.hint)


def _check_filter(wanted: str, at: Path, evaluator: Evaluator) -> Iterator[Fault]:
    template = evaluator.compile(wanted)
    if not (template.faults or template.is_one_expression):
        hint = "Write `${{ trigger.body.action == 'opened' }}`, for instance."
        yield Fault(pointer(at), "bad_value", "A filter is one expression, and nothing else.", hint)
    yield from _check_expressions(wanted, at, evaluator)


def _check_params(params: Json, at: Path, evaluator: Evaluator) -> Iterator[Fault]:
    if isinstance(params, str):
        template = evaluator.compile(params)
        if not (template.faults or template.is_one_expression):
            hint = "Write an object, or `${{ trigger.body }}`, for instance."
            message = "Params are an object, or one expression."
            yield Fault(pointer(at), "bad_value", message, hint)
    yield from _check_expressions(params, at, evaluator)


def _check_expressions(value: Json, base: Path, evaluator: Evaluator) -> Iterator[Fault]:
    for path, text in strings(value, base):
        if "${{" not in text:
            continue
        template = evaluator.compile(text)
        for fault in template.faults:
            yield replace(fault, pointer=pointer(path))
        if template.secrets:
            yield secret_not_allowed(pointer(path))
        for root in sorted(template.roots - _SEES):
            yield Fault(
                pointer(path),
                "not_known_yet",
                f"This is worked out before there is a run, when there is no `{root}`.",
                "It may refer to `trigger`.",
            )
