import json
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from graphwright.client.sse import Comment, Parser, Position, ServerEvent


def parsed(chunks: Iterable[bytes]) -> list[ServerEvent | Position | Comment]:
    parser = Parser()
    return [message for chunk in chunks for message in parser.feed(chunk)]


def test_retries_and_unknown_fields_are_passed_over() -> None:
    stream = b": ping\r\nretry: 10\r\nid: 7\r\nevent: node.log\r\ndata: one\r\ndata: two\r\n\r\n"
    assert parsed([stream]) == [Comment("ping"), ServerEvent("node.log", "7", "one\ntwo")]


def test_an_id_without_data_is_a_position() -> None:
    stream = b"id: 7\r\nretry: 10\r\n\r\n: heartbeat\r\nid: 8\r\n\r\nid:\r\n\r\n"
    assert parsed([stream]) == [Position("7"), Comment("heartbeat"), Position("8")]


def test_an_unfinished_event_is_not_dispatched() -> None:
    assert parsed([b"data: whole\n\ndata: cut"]) == [ServerEvent("message", "", "whole")]


def test_an_event_is_given_as_soon_as_its_blank_line_is_there() -> None:
    parser = Parser()
    assert list(parser.feed(b"data: first\r\n\r")) == [ServerEvent("message", "", "first")]
    assert list(parser.feed(b"\ndata: second\r\n\r\n")) == [ServerEvent("message", "", "second")]


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
    events = [each for each in parsed(cut) if isinstance(each, ServerEvent)]
    assert [(int(event.id), json.loads(event.data)) for event in events] == sent
