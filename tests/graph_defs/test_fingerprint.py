import json
import random

from hypothesis import given
from hypothesis import strategies as st

from foundation.settings import Limits
from graph_defs.fingerprint import Canonical, canonical
from graph_defs.json_values import Json, JsonObject
from graph_defs.parsing import parse
from graph_defs.yaml_text import write_yaml
from tests.graph_defs.strategies import objects, values

LIMITS = Limits()


def fingerprint_of(document: JsonObject) -> str:
    return Canonical.of(document).fingerprint


def shuffled(value: Json, chance: random.Random) -> Json:
    if isinstance(value, list):
        return [shuffled(item, chance) for item in value]
    if isinstance(value, dict):
        items = list(value.items())
        chance.shuffle(items)
        return {key: shuffled(item, chance) for key, item in items}
    return value


@given(objects, st.randoms(use_true_random=False), st.sampled_from([None, 1, 8, "\t"]))
def test_key_order_formatting_and_language_do_not_matter(
    value: JsonObject, chance: random.Random, indent: int | str | None
) -> None:
    plain = fingerprint_of(parse(json.dumps(value), LIMITS))
    mixed = shuffled(value, chance)
    assert isinstance(mixed, dict)
    as_json = json.dumps(mixed, indent=indent, ensure_ascii=False)
    assert fingerprint_of(parse(as_json, LIMITS)) == plain
    assert fingerprint_of(parse(write_yaml(mixed), LIMITS)) == plain


@given(objects)
def test_the_canonical_form_is_its_own(value: JsonObject) -> None:
    form = canonical(parse(json.dumps(value), LIMITS))
    assert canonical(parse(form, LIMITS)) == form
    assert parse(form, LIMITS) == json.loads(form)


@given(objects, values)
def test_a_change_changes_it(value: JsonObject, other: Json) -> None:
    before = parse(json.dumps({**value, "x": 0}), LIMITS)
    after = parse(json.dumps({**value, "x": [other]}), LIMITS)
    assert fingerprint_of(before) != fingerprint_of(after)


def test_the_example_of_rfc_8785() -> None:
    text = (
        '{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],'
        r'"string": "\u20ac$\u000F\u000aA\u0027\u0042\u0022\u005c\\\"\/",'
        '"literals": [null, true, false]}'
    )
    assert canonical(parse(text, LIMITS)).decode() == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        r'"string":"€$\u000f\nA' + "'" + r'B\"\\\\\"/"}'
    )


def test_whole_numbers_are_one_number_however_written() -> None:
    forms = {fingerprint_of(parse(f"a: {text}", LIMITS)) for text in ("2", "2.0", "0x2", "2e0")}
    assert len(forms) == 1
    assert len(forms.pop()) == 64
