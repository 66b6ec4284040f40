import json
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from graphwright.sse import ServerEvent, parse


def test_comments_retries_and_unknown_fields_are_passed_over() -> None:
    stream = b": ping\r\nretry: 10\r\nid: 7\r\nevent: node.log\r\ndata: one\r\ndata: two\r\n\r\n"
    assert list(parse([stream])) == [ServerEvent("node.log", "7", "one\ntwo")]


def test_an_unfinished_event_is_not_dispatched() -> None:
    assert list(parse([b"data: whole\n\ndata: cut"])) == [ServerEvent("message", "", "whole")]


def test_an_event_is_given_as_soon_as_its_blank_line_is_there() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"data: first\n\n"
        raise AssertionError("asked for more than the first event needs")

    assert next(parse(chunks())).data == "first"


@given(
    st.lists(
        st.tuples(st.integers(0), st.text(st.characters(exclude_categories=["Cs"]))), min_size=1
    ),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.integers(1, 7),
)
def test_what_was_sent_arrives_however_it_is_cut(
    sent: list[tuple[int, str]], end: str, size: int
) -> None:
    lines: list[str] = []
    for number, text in sent:
        # As the API writes it: JSON, in which U+2028 and the like may stand unescaped.
        lines += [f"id: {number}", f"data: {json.dumps(text, ensure_ascii=False)}", ""]
    stream = end.join([*lines, ""]).encode()
    cut = [stream[at : at + size] for at in range(0, len(stream), size)]
    got = [(int(event.id), json.loads(event.data)) for event in parse(cut)]
    assert got == sent
