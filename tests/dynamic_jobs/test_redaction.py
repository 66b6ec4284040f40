"""Values of secrets are struck out, however they are written."""

import base64
import html
import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, cast
from urllib.parse import quote, quote_plus

import orjson
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dynamic_jobs.executing.redacted_logs import RedactedLogs
from dynamic_jobs.executing.redaction import MASK, MIN_LENGTH, Redactor, is_too_short
from foundation.errors import Fault, Invalid
from graph_defs.json_values import kind_of

characters = st.characters(codec="utf-8", exclude_characters="\0")
values = st.text(characters, min_size=1, max_size=60).filter(lambda text: not is_too_short(text))
around = st.text(characters, max_size=20)

FORMS: Final[dict[str, Callable[[str], str]]] = {
    "plain": lambda text: text,
    "small": lambda text: "".join(map(str.lower, text)),
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON, not only ASCII": lambda text: orjson.dumps(text).decode()[1:-1],
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "JSON with escaped slashes": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "percent": lambda text: quote(text, safe=""),
    "percent, as of a path": quote,
    "percent, as of a form": quote_plus,
    "percent, as browsers do": lambda text: quote(text, safe="!'()*~"),
    "percent, small hex": lambda text: re.sub(
        "%..", lambda found: found[0].lower(), quote(text, safe="")
    ),
    "percent, each byte": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "percent, twice": lambda text: quote(quote(text, safe=""), safe=""),
    "percent, as of a form, twice": lambda text: quote_plus(quote_plus(text)),
    "percent, three times, small hex": lambda text: re.sub(
        "%..", lambda found: found[0].lower(), quote(quote(quote(text, safe=""), safe=""), safe="")
    ),
    "HTML": html.escape,
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
}
ENCODERS: Final = (base64.b64encode, base64.urlsafe_b64encode)


@pytest.mark.parametrize("form", FORMS)
@given(value=values, before=around, after=around)
@example(value="****", before="*", after="***")
@example(value="a***b", before="a", after="b")
@example(value='say "hi"\\', before="", after='"')
@example(value="  padded\n", before="x", after="x")
@example(value="Grüße, 😀", before="", after="")
def test_no_form_of_a_value_survives(form: str, value: str, before: str, after: str) -> None:
    write = FORMS[form]
    told = Redactor([value]).text(f"{before}{write(value)}{after}")
    assert write(value) not in told
    assert MASK in told


@pytest.mark.parametrize("encode", ENCODERS)
@given(value=values, before=st.binary(max_size=7), after=st.binary(max_size=7))
def test_no_base64_of_a_value_survives_wherever_it_begins(
    encode: Callable[[bytes], bytes], value: str, before: bytes, after: bytes
) -> None:
    data = value.strip().encode()
    redactor = Redactor([value])
    told = redactor.text(encode(before + data + after).decode())
    assert MASK in told
    kept = told.replace(MASK, "").rstrip("=")
    # What is left are the digits of the neighbours alone.
    assert len(kept) <= len(before) * 8 // 6 - (-len(after) * 8 // 6)
    quoted = redactor.text(quote_plus(encode(before + data + after)))
    assert MASK in quoted


def _quote_all(text: str) -> str:
    return quote(text, safe="")


def _lines(data: bytes, length: int, line_break: str) -> str:
    digits = base64.b64encode(data).decode()
    return line_break.join(re.findall(f".{{1,{length}}}", digits))


@pytest.mark.parametrize(
    "line_break",
    ["\n", "\r\n", "\n    ", " ", "\\n", "\\r\\n", "\\\\n", "%0A", "%0d%0a"],
)
@given(
    value=st.text(characters, min_size=4, max_size=200).filter(lambda text: not is_too_short(text)),
    before=st.binary(max_size=80),
    after=st.binary(max_size=80),
    length=st.sampled_from([4, 64, 76]),
)
def test_no_base64_of_a_value_survives_in_lines(
    line_break: str, value: str, before: bytes, after: bytes, length: int
) -> None:
    data = value.strip().encode()
    redactor = Redactor([value])
    told = redactor.text(_lines(before + data + after, length, line_break))
    kept = "".join(told.replace(MASK, "").split(line_break)).rstrip("=")
    assert MASK in told
    assert len(kept) <= len(before) * 8 // 6 - (-len(after) * 8 // 6)


@pytest.mark.parametrize("write", [quote, quote_plus, _quote_all])
@given(value=values, before=st.binary(max_size=7), after=st.binary(max_size=7))
@example(value="sk_live_ aB3$/+ x@9Zq", before=b"", after=b"")
def test_no_base64_of_a_percent_encoded_value_survives(
    write: Callable[[str], str], value: str, before: bytes, after: bytes
) -> None:
    data = write(value.strip()).encode()
    redactor = Redactor([value])
    for told in (
        redactor.text(base64.urlsafe_b64encode(before + data + after).decode()),
        redactor.text(_lines(before + data + after, 76, "\n")),
    ):
        assert MASK in told
        kept = re.sub(r"\s", "", told.replace(MASK, "")).rstrip("=")
        assert len(kept) <= len(before) * 8 // 6 - (-len(after) * 8 // 6)


def test_the_neighbours_of_base64_in_lines_stay() -> None:
    encoded = base64.encodebytes(b"open-sesame." * 9).decode()
    redactor = Redactor(["open-sesame." * 9])
    assert redactor.text(f"the key\n{encoded}is\nodd") == f"the key\n{MASK}\nis\nodd"


def test_digits_in_lines_that_are_no_base64_of_the_value_stay() -> None:
    redactor = Redactor(["s3cr3t"])  # czNjcjN0
    for text in ("czNj", "czNj\n", "czN\njcjN0", "czNj\n-\ncjN0", "czNj\n\ncjN1", "czNj, cjN0"):
        assert redactor.text(text) == text
    assert redactor.text("czNj\ncjN0") == MASK


@given(
    value=st.text("ghijk~", min_size=MIN_LENGTH, max_size=20),
    text=st.text("%250aAdD+/=_- \\nr\n&;u", max_size=200),
)
def test_what_encodings_are_made_of_stays_as_it_is(value: str, text: str) -> None:
    assert Redactor([value]).text(text) == text


@given(value=values, text=st.text(max_size=200))
def test_other_texts_stay_as_they_are(value: str, text: str) -> None:
    lines = [value.strip(), *(line.strip() for line in value.splitlines())]
    flat = re.sub(r"[^a-z0-9]", "", text.lower())
    assume(not any(re.sub(r"[^a-z0-9]", "", line.lower()) in flat for line in lines))
    assert Redactor([value]).text(text) == text


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | around,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(around, inner, max_size=4),
    max_leaves=12,
)


@given(value=values, form=st.sampled_from(sorted(FORMS)), output=json_values, where=st.integers(0))
@example(value="FALS", form="plain", output=False, where=0)
def test_an_output_keeps_its_shape(value: str, form: str, output: Any, where: int) -> None:
    planted = _planted(output, FORMS[form](value), where)
    redactor = Redactor([value])
    assert redactor.finds(orjson.dumps(planted))  # what tells whether to look at all
    told = redactor.value(planted)
    assert not any(map(redactor.finds, _tellings(told))) or "*" in value
    assert _shape(told) == _shape(planted)
    assert orjson.loads(orjson.dumps(told)) == told


def _planted(output: Any, written: str, where: int) -> Any:
    """The output with the value in one of its strings or keys, or beside it."""
    return [
        {"in a string": f"a {written} b", "the rest": output},
        {f"in a key {written}": output},
        {"deep": [[{"deeper": [output, written]}]]},
    ][where % 3]


def _tellings(value: Any) -> Iterator[bytes]:
    """What a value says, as JSON: not its brackets, nor the words that JSON itself has."""
    match value:
        case dict():
            members = cast("dict[str, Any]", value)
            yield from _tellings([*members, *members.values()])
        case list():
            for each in cast("list[Any]", value):
                yield from _tellings(each)
        case bool() | None:
            pass
        case _:
            yield orjson.dumps(value)


def _shape(value: Any) -> Any:
    match value:
        case dict():
            return [_shape(each) for each in cast("dict[str, Any]", value).values()]
        case list():
            return tuple(_shape(each) for each in cast("list[Any]", value))
        case _:
            return kind_of(value)


def test_a_number_that_is_the_value_becomes_a_text() -> None:
    redactor = Redactor(["24681357"])
    output = {"pin": 24681357, "half": 2468.5, "in": 1246813570, "yes": True, "none": None}
    assert redactor.finds(orjson.dumps(output))
    assert redactor.value(output) == {
        "pin": MASK, "half": 2468.5, "in": MASK, "yes": True, "none": None,
    }  # fmt: skip


def test_keys_that_become_equal_are_told_apart() -> None:
    told = Redactor(["s3cr3t"]).value({"s3cr3t": 1, "S3CR3T": 2, "%733cr3t": 3, "s3cr3t/": 4})
    assert told == {MASK: 1, "S3CR3T": 2, f"{MASK} (3)": 3, f"{MASK}/": 4}


def test_capitals_may_have_become_small() -> None:
    assert Redactor(["AbCdEf"]).text("abcdef.example.org answered 500.") == (
        "***.example.org answered 500."
    )


def test_basic_authorization_is_found_whoever_the_user_is() -> None:
    redactor = Redactor(["open sesame"])
    for user in ("ann", "anne", "annie"):
        header = base64.b64encode(f"{user}:open sesame".encode()).decode()
        told = redactor.text(f"Basic {header}")
        assert header[len(user) + 4 :] not in told
        assert told.endswith(MASK)


def test_each_longer_line_is_found_by_itself() -> None:
    redactor = Redactor(["-----BEGIN KEY-----\nMIIEvQIBADANBg\nabc\n-----END KEY-----\n"])
    assert redactor.text("line 2: MIIEvQIBADANBg is odd") == "line 2: *** is odd"
    assert redactor.text("abc") == "abc"


def test_a_longer_value_goes_before_one_that_is_in_it() -> None:
    redactor = Redactor(["token", "token-of-mine"])
    assert redactor.text("a token-of-mine, a token") == "a ***, a ***"


def test_half_of_a_surrogate_pair_is_no_obstacle() -> None:
    assert Redactor(["s3cr3t"]).text("\ud83d s3cr3t \ude00") == "\ud83d *** \ude00"


def test_blanks_around_a_value_do_not_make_it_long_enough() -> None:
    assert is_too_short(f" {'a' * (MIN_LENGTH - 1)} \n")
    assert not is_too_short("a" * MIN_LENGTH)


def test_an_error_is_cleaned_with_all_that_hangs_on_it() -> None:
    error = Invalid(
        "s3cr3t?", [Fault("/s3cr3t", "bad", "is s3cr3t", "not s3cr3t")], hint="s3cr3t!", at="s3cr3t"
    )
    error.__cause__ = ValueError("s3cr3t")
    error.add_note("s3cr3t")
    Redactor(["s3cr3t"]).error(error)
    assert "s3cr3t" not in repr((str(error), error.args, vars(error)))
    assert error.__cause__ is error.__context__ is None
    assert (error.message, error.hint, error.ids) == ("***?", "***!", {"at": "***"})


def test_a_long_value_is_found_too() -> None:
    value = "".join(f"{number:x}." for number in range(14_000))[: 64 * 2**10]
    redactor = Redactor([value])
    assert redactor.text(f"a{value}b") == "a***b"
    assert MASK in redactor.text(base64.b64encode(b"x" + value.encode()).decode())


@pytest.mark.parametrize("pattern", ["/ ", "?>~", "é /", 'a"\n<', "Ü"])
def test_every_form_of_a_value_of_five_kilobytes_is_found(pattern: str) -> None:
    value = f"x{pattern * 5000}".encode()[: 5 * 2**10 - 2].decode(errors="ignore") + "x"
    told = Redactor([value]).text(
        "\n".join(
            [
                value,
                quote(quote(value)),
                base64.encodebytes(value.encode()).decode(),
                base64.b64encode(quote_plus(value).encode()).decode(),
            ]
        )
    )
    assert re.fullmatch(r"[*\s=]+", told)


@pytest.fixture
def logs() -> Iterator[RedactedLogs]:
    made = RedactedLogs()
    yield made
    made.close()


def test_log_lines_of_any_library_are_without_the_values_while_they_are_in_use(
    logs: RedactedLogs, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("some.library")
    redactor = Redactor(["s3cr3t"])
    logs.watch(redactor)
    log.warning("sending %s", "s3cr3t")
    log.warning("%d does not fit", "s3cr3t")
    try:
        raise ValueError("s3cr3t")
    except ValueError:
        log.exception("it failed")
    assert "s3cr3t" not in caplog.text
    assert "sending ***" in caplog.text
    assert "ValueError: ***" in caplog.text
    del redactor
    log.warning("s3cr3t is a word like any other")
    assert "s3cr3t is a word" in caplog.text
