"""The live tree of ``run start --watch``, as it is drawn."""

import io
from typing import Any

import pytest
from rich.console import Console

from graphwright.tree import RunTree

NEEDS = {"read": [], "left": ["read"], "right": ["read"], "join": ["left", "right"]}


def event(kind: str, node: str | None = None, second: float = 0, **given: Any) -> dict[str, Any]:
    return {
        "id": "1",
        "type": kind,
        "node": node,
        "item": None,
        "attempt": given.pop("attempt", 1),
        "at": f"2026-01-31T09:30:{second:09.6f}Z",
        "data": given,
    }


def drawn(tree: RunTree, height: int = 24) -> list[str]:
    console = Console(width=100, height=height, file=io.StringIO(), record=True)
    console.print(tree)
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_each_node_stands_below_what_it_needs() -> None:
    title, *lines, foot = drawn(RunTree("digest version 3", NEEDS))
    assert title == "digest version 3"
    assert [line.strip("│├└─ ") for line in lines] == [
        "· read",
        "· left",
        "· right",
        "· join  ← left, right",
    ]
    depth = {line.split("· ")[1].split()[0]: line.index("·") for line in lines}
    assert depth["read"] < depth["left"] == depth["right"] < depth["join"]
    assert foot.split()[-3:] == ["queued", "0/4", "nodes"]


def test_it_shows_status_attempt_time_and_words() -> None:
    tree = RunTree("t", NEEDS)
    for each in (
        event("run.started"),
        event("node.started", "read"),
        event("node.succeeded", "read", 1.5, duration_ms=1500),
        event("node.started", "left", 2),
        event("node.retrying", "left", 3, error={"message": "no\nanswer"}, seconds=1),
        event("node.started", "left", 4, attempt=2),
        event("node.log", "left", 5, message="second try", level="info"),
        event("node.started", "right", 2),
        event("node.failed", "right", 2.25, error={"code": "x", "message": "bad [input]"}),
        event("node.skipped", "join", 6),
        event("node.unheard_of", "join", 6),
        event("run.unheard_of"),
    ):
        tree(each)
    text = "\n".join(drawn(tree))
    assert "✓ read  1.5 s" in text
    assert "attempt 2  second try" in text
    assert "✗ right  250 ms  bad [input]" in text
    assert "↷ join  skipped" in text
    assert "3/4 nodes, 1 failed" in text


@pytest.mark.parametrize(
    ("kind", "status"), [("node.retrying", "retrying"), ("node.waiting", "waiting")]
)
def test_what_waits_says_so(kind: str, status: str) -> None:
    tree = RunTree("t", {"a": []})
    tree(event("node.started", "a"))
    tree(event(kind, "a", error={"message": "gone"}))
    text = "\n".join(drawn(tree))
    assert status in text and "gone" in text


def test_a_cancelled_run_has_no_node_under_way() -> None:
    tree = RunTree("t", {"a": [], "b": []})
    tree(event("node.started", "a"))
    tree(event("run.cancelled"))
    text = "\n".join(drawn(tree))
    assert text.count("■") == 2 and "cancelled  2/2 nodes" in text


def test_of_more_nodes_than_lines_those_under_way_are_shown() -> None:
    tree = RunTree("t", {f"n{number}": [] for number in range(50)})
    for number in range(30):
        tree(event("node.started", f"n{number}"))
    for number in range(28):
        tree(event("node.succeeded", f"n{number}"))
    lines = drawn(tree, height=12)
    assert len(lines) <= 12
    assert [line.split()[2] for line in lines[1:3]] == ["n28", "n29"]
    for number in range(30, 50):
        tree(event("node.started", f"n{number}"))
    lines = drawn(tree, height=12)
    assert len(lines) <= 12
    assert "… and 15 more" in "\n".join(lines)
    assert "28/50 nodes" in lines[-1]
