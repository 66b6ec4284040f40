"""The examples in docs/expressions.md do what they say."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundation.settings import Limits
from graph_defs.expressions import Evaluator, ExpressionError, Scope

PAGE = (Path(__file__).parents[2] / "docs" / "expressions.md").read_text("utf-8")
(SCOPE,) = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
EXAMPLES = [
    tuple(part.strip() for part in line.split("→", 1))
    for block in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    with Evaluator(Limits()) as made:
        yield made


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 25


@pytest.mark.parametrize(("written", "shown"), EXAMPLES)
def test_example(evaluator: Evaluator, written: str, shown: str) -> None:
    template = evaluator.compile(json.loads(written))
    if shown.startswith("expression_"):
        with pytest.raises(ExpressionError) as caught:
            evaluator.evaluate(template, Scope(**SCOPE))
        code, _, words = shown.partition(": ")
        assert caught.value.code == code
        assert words in caught.value.message
    else:
        got = evaluator.evaluate(template, Scope(**SCOPE))
        assert json.dumps(got, sort_keys=True) == json.dumps(json.loads(shown), sort_keys=True)
