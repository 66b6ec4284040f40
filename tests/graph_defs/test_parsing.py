import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import Invalid, TooLarge
from foundation.settings import Limits
from graph_defs.json_values import JsonObject, normal
from graph_defs.parsing import parse, read
from graph_defs.yaml_text import write_yaml
from tests.graph_defs.strategies import objects

LIMITS = Limits()


def faults_of(source: bytes | str, limits: Limits = LIMITS) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as raised:
        parse(source, limits)
    return [(fault.pointer, fault.code) for fault in raised.value.faults]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("on", "on"),
        ("~", None),
        ("", None),
        ("2001-01-01", "2001-01-01"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0o17", 15),
        ("0x1F", 31),
        ("2.0", 2),
        ("-0.5", -0.5),
        ("1e3", 1000),
        (".5", 0.5),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("9007199254740991", 2**53 - 1),
        ("1e21", 1e21),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert parse(f"a: {text}", LIMITS) == {"a": value}
    assert type(parse(f"a: {text}", LIMITS)["a"]) is type(value)


def test_keys_are_strings_whatever_they_look_like() -> None:
    assert parse("1: a\ntrue: b\nnull: c\n2001-01-01: d", LIMITS) == {
        "1": "a",
        "true": "b",
        "null": "c",
        "2001-01-01": "d",
    }


@given(objects, st.booleans())
def test_reads_what_json_writes(value: JsonObject, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert parse(text, LIMITS) == normal(value)
    assert parse(text.encode(), LIMITS) == normal(value)


@given(objects)
def test_reads_the_yaml_that_it_writes(value: JsonObject) -> None:
    assert parse(write_yaml(value), LIMITS) == normal(value)


def test_byte_order_mark_and_trailing_commas_are_no_fault() -> None:
    assert parse(b'\xef\xbb\xbf{"a": [1, 2,],}', LIMITS) == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("a: b: c", "bad_syntax", "Line 1, column 5"),
        ('{"a": 1,,}', "bad_syntax", "Line 1, column 9"),
        ("a: 1\n---\nb: 2", "bad_syntax", "more than one document"),
        ("a: [1, 2", "bad_syntax", "Line"),
        ("? {a: b}\n: c", "bad_syntax", "a key must be a string"),
        ("a: \x07", "bad_syntax", "characters"),
        ("  \n", "wrong_type", "empty"),
        ("# only a comment", "wrong_type", "null"),
        ("just text", "wrong_type", "a string"),
        ("[1]", "wrong_type", "an array"),
        (b"a: \xff", "bad_encoding", "byte 3"),
    ],
)
def test_what_is_no_document(text: bytes | str, code: str, message: str) -> None:
    with pytest.raises(Invalid) as raised:
        parse(text, LIMITS)
    (fault,) = raised.value.faults
    assert (fault.pointer, fault.code) == ("", code)
    assert message in fault.message


def test_faults_of_content_come_together_with_their_pointers() -> None:
    text = """
        a: {b: 1, b: 2}
        c: [&x 1, *x, !!binary aGk=]
        d/e: .nan
        f: 12345678901234567890123
        g: "\\0"
        h: 1e20
    """
    assert sorted(faults_of(text)) == [
        ("/a/b", "duplicate_key"),
        ("/c/1", "yaml_alias"),
        ("/c/2", "yaml_tag"),
        ("/d~1e", "bad_number"),
        ("/f", "bad_number"),
        ("/g", "bad_string"),
        ("/h", "bad_number"),
    ]
    assert faults_of('{"a": {"b": 1, "b": 2, "b": 3}, "c": NaN, "d": "\\ud800", "e": 1e999}') == [
        ("/a/b", "duplicate_key"),
        ("/c", "bad_number"),
        ("/d", "bad_string"),
        ("/e", "bad_number"),
    ]


def test_what_can_be_read_is_kept_beside_the_faults() -> None:
    reading = read("a: 1\na: 2\nb: [3]", LIMITS)
    assert reading.document == {"a": 2, "b": [3]}
    assert [fault.code for fault in reading.faults] == ["duplicate_key"]


def test_depth_is_bounded() -> None:
    limits = Limits(max_depth=3)
    assert parse("{a: [[1]]}", limits) == {"a": [[1]]}
    assert faults_of("{a: [[[1]]]}", limits) == [("/a/0/0", "too_deep")]


@pytest.mark.parametrize("opening", ['{"a":', "[", "{a: ", "- "])
def test_nesting_without_end_exhausts_nothing(opening: str) -> None:
    codes = {code for _, code in faults_of(opening * 100_000)}
    assert codes <= {"too_deep", "bad_syntax", "wrong_type"}


def test_aliases_are_not_expanded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for number in range(1, 30):
        refers = ", ".join([f"*a{number - 1}"] * 10)
        lines.append(f"a{number}: &a{number} [{refers}]")
    assert {code for _, code in faults_of("\n".join(lines))} == {"yaml_alias"}


def test_size_is_bounded_in_bytes() -> None:
    limits = Limits(max_document_bytes=10)
    assert parse("a: ééé", limits) == {"a": "ééé"}
    with pytest.raises(TooLarge) as raised:
        parse("a: éééé", limits)
    assert "11" in raised.value.message


def test_random_bytes_are_refused_or_read() -> None:
    chance = random.Random(7)
    for _ in range(2_000):
        source = bytes(chance.choices(b"{}[]:,\"'&*!|>-# \n\ta0.\\e\xc3", k=chance.randint(0, 40)))
        try:
            document: Any = parse(source, LIMITS)
        except Invalid as error:
            assert error.faults
        else:
            assert isinstance(document, dict)
