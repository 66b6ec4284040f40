"""The official test suite of JSON Schema 2020-12, against what checks params."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graph_defs.json_schema import Checker, Index, Meter, check_schema
from graph_defs.suggestions import Suggester

SUITE = Path(__file__).parents[1] / "data" / "json-schema-suite"

REFUSED = (
    "`$id` is not accepted",
    "The reference leads out of the document",
    "must be an integer from 0 up, but is a number",  # 2.0, which a document holds as 2
    r"invalid character class range: \p{Letter}",  # RE2 has \p{L}
)
"""Reasons for which a schema of the suite may be refused, as docs/graph-document.md says."""

DIFFERENT = {
    "a quoted string with a space in the local part is valid",
    "a quoted string with a double dot in the local part is valid",
    "a quoted string with a @ in the local part is valid",
    "an IPv4-address-literal after the @ is valid",
    "an IPv6-address-literal after the @ is valid",
}
"""Mail addresses that are refused on purpose."""


def _cases() -> Iterator[Any]:
    for file in sorted(SUITE.glob("*.json")):
        for case in json.loads(file.read_text()):
            yield pytest.param(case, id=f"{file.stem}: {case['description']}")


@pytest.mark.parametrize("case", list(_cases()))
def test_agrees_with_the_suite(case: dict[str, Any]) -> None:
    faults = check_schema(case["schema"], (), Suggester())
    if faults:
        assert any(reason in fault.message for reason in REFUSED for fault in faults)
        return
    index = Index(case["schema"])
    for test in case["tests"]:
        if test["description"] not in DIFFERENT:
            problems = Checker(index, Meter()).check(case["schema"], test["data"])
            assert (not problems) == test["valid"], test["description"]
