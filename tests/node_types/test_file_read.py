import os
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import given as given_values
from hypothesis import strategies as st

from node_types.base import NodeCancelled, NodeError, NodePolicy
from node_types.file_read import FileRead, Read
from node_types.support.formats import FormatError, read_csv
from tests.node_types.conftest import ContextFor
from tests.node_types.running import run

NO_NULLS = frozenset({""})


def read(root: Path, context_for: ContextFor, path: str, **fields: Any) -> Any:
    policy = NodePolicy(file_roots=(root,), max_input_bytes=1_000)
    given = Read.model_validate({"path": path, **fields})
    return run(FileRead(), given, context_for(policy)).model_dump(mode="json")


def refused(root: Path, context_for: ContextFor, path: str, **fields: Any) -> NodeError:
    with pytest.raises(NodeError) as raised:
        read(root, context_for, path, **fields)
    told = (raised.value.message + raised.value.hint).replace(path, "")
    assert str(root.parent) not in told
    return raised.value


def test_reads_each_format(root: Path, context_for: ContextFor) -> None:
    (root / "a.csv").write_text("\ufeffname,n\nx,1\ny,\n")
    (root / "b.json").write_text('{"a": [1, 2.5, null]}')
    (root / "c.jsonl").write_text('{"a": 1}\n\n[2]\n')
    (root / "d.txt").write_text("né")
    (root / "sub").mkdir()
    (root / "sub" / "e.data").write_text("1")
    rows = [{"name": "x", "n": 1}, {"name": "y", "n": None}]
    assert read(root, context_for, "a.csv") == {"rows": rows}
    assert read(root, context_for, "b.json") == {"value": {"a": [1, 2.5, None]}}
    assert read(root, context_for, "c.jsonl") == {"rows": [{"a": 1}, [2]]}
    assert read(root, context_for, "d.txt") == {"text": "né"}
    assert read(root, context_for, "sub/e.data", format="json") == {"value": 1}
    assert read(root, context_for, "a.csv", format="text")["text"].startswith("name,n")
    assert read(root, context_for, str(root / "d.txt")) == {"text": "né"}


def test_roots_are_searched_in_order(tmp_path: Path, context_for: ContextFor) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text(name)
        (tmp_path / name / "both.txt").write_text(name)
    policy = NodePolicy(file_roots=(tmp_path / "one", tmp_path / "two", tmp_path / "absent"))

    def text(path: str) -> Any:
        output = run(FileRead(), Read(path=path), context_for(policy)).model_dump(mode="json")
        return output["text"]

    assert text("two.txt") == "two"
    assert text("both.txt") == "one"


def test_nothing_outside_is_read(root: Path, context_for: ContextFor) -> None:
    secret = root.parent / "secret.txt"
    secret.write_text("secret")
    (root / "link.txt").symlink_to(secret)
    (root / "out").symlink_to(root.parent)
    (root / "inside.txt").symlink_to(root / "real.txt")
    (root / "real.txt").write_text("real")
    for path in ("../secret.txt", str(secret), "link.txt", "out/secret.txt", "/etc/passwd", ".."):
        assert refused(root, context_for, path, format="text").code == "file_not_allowed"
    assert refused(root, context_for, "../none.txt").code == "file_not_allowed"
    assert read(root, context_for, "inside.txt") == {"text": "real"}
    with pytest.raises(NodeError) as raised:
        run(FileRead(), Read(path="real.txt"), context_for(NodePolicy()))
    assert raised.value.code == "file_not_allowed"


def test_a_sibling_whose_name_begins_alike_is_outside(root: Path, context_for: ContextFor) -> None:
    sibling = root.parent / f"{root.name}-too"
    sibling.mkdir()
    (sibling / "a.txt").write_text("no")
    path = f"../{sibling.name}/a.txt"
    assert refused(root, context_for, path).code == "file_not_allowed"


@pytest.mark.parametrize("path", ["none.txt", ".", "a\0.txt", "x" * 5_000 + ".txt", "loop.txt"])
def test_what_is_no_file(path: str, root: Path, context_for: ContextFor) -> None:
    (root / "loop.txt").symlink_to(root / "loop.txt")
    error = refused(root, context_for, path, format="text")
    assert error.code in {"file_not_found", "file_not_allowed"}


def test_a_pipe_is_not_waited_for(root: Path, context_for: ContextFor) -> None:
    os.mkfifo(root / "pipe.txt")
    assert refused(root, context_for, "pipe.txt").code == "file_not_found"


def test_size_is_bounded(root: Path, context_for: ContextFor) -> None:
    (root / "a.txt").write_text("x" * 1_000)
    (root / "b.txt").write_text("x" * 1_001)
    assert len(read(root, context_for, "a.txt")["text"]) == 1_000
    assert refused(root, context_for, "b.txt").code == "file_too_large"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.json", b"{", "line 1"),
        ("a.json", b'{"a": NaN}', "line 1"),
        ("a.jsonl", b"{}\n{]", "line 2"),
        ("a.csv", b"", "no header"),
        ("a.csv", b"a,b\n1\n", "line 2 has 1 cells"),
        ("a.csv", b"a,a\n1,2\n", "two columns"),
        ("a.csv", b"a,\n1,2\n", "column 2"),
        ("a.csv", b'a\n"x', "line 2"),
        ("a.txt", b"\xff", "not UTF-8"),
        ("a.bin", b"", "extension"),
    ],
)
def test_what_cannot_be_read_says_where(
    name: str, content: bytes, told: str, root: Path, context_for: ContextFor
) -> None:
    (root / name).write_bytes(content)
    error = refused(root, context_for, name)
    assert error.code == "file_unreadable"
    assert told in error.message


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "-2", "+3", "0"], [1, -2, 3, 0]),
        (["1", "2.5", "1e3", ".5", "3."], [1.0, 2.5, 1000.0, 0.5, 3.0]),
        (["true", "FALSE"], [True, False]),
        (["1", ""], [1, None]),
        (["", ""], [None, None]),
        (["01234", "00001"], ["01234", "00001"]),
        (["12345678901234567890", "1"], ["12345678901234567890", "1"]),
        (["1", "x"], ["1", "x"]),
        (["true", "1"], ["true", "1"]),
        (["nan", "1"], ["nan", "1"]),
        (["1e999", "1"], ["1e999", "1"]),
        (["e5", "."], ["e5", "."]),
        (["1_0", " 1"], ["1_0", " 1"]),
        (["٣"], ["٣"]),
    ],
)
def test_the_cells_of_a_column_share_a_type(cells: list[str], values: list[Any]) -> None:
    text = "x,c\n" + "".join(f"r,{cell}\n" for cell in cells)
    found = [row["c"] for row in read_csv(text, NO_NULLS) if isinstance(row, dict)]
    assert found == values
    assert [type(each) for each in found] == [type(each) for each in values]


def test_what_means_a_missing_value_may_be_said(root: Path, context_for: ContextFor) -> None:
    (root / "a.csv").write_text("n,s\n1,NA\nNA,\n")
    assert read(root, context_for, "a.csv", nulls=["NA"]) == {
        "rows": [{"n": 1, "s": None}, {"n": None, "s": ""}]
    }


def test_quoted_cells_hold_commas_and_lines() -> None:
    assert read_csv('a,b\r\n"x, ""y""","1\n2"\r\n', NO_NULLS) == [{"a": 'x, "y"', "b": "1\n2"}]


@given_values(st.text())
def test_any_text_is_a_table_or_a_fault(text: str) -> None:
    try:
        rows = read_csv(text, NO_NULLS)
    except FormatError as error:
        assert str(error)
    else:
        assert all(isinstance(row, dict) for row in rows)


def test_reading_ends_when_it_is_cancelled(root: Path, context_for: ContextFor) -> None:
    (root / "a.txt").write_text("x")
    cancelled = Event()
    cancelled.set()
    context = replace(context_for(NodePolicy(file_roots=(root,))), cancelled=cancelled)
    with pytest.raises(NodeCancelled):
        run(FileRead(), Read(path="a.txt"), context)


@pytest.mark.parametrize("size", [0, 2**20, 2**20 + 1, 3 * 2**20])
def test_a_file_of_many_blocks_is_read_whole(
    root: Path, context_for: ContextFor, size: int
) -> None:
    text = "".join(str(number % 10) for number in range(size))
    (root / "a.txt").write_text(text)
    policy = NodePolicy(file_roots=(root,), max_input_bytes=size)
    output = run(FileRead(), Read(path="a.txt"), context_for(policy))
    assert output.model_dump() == {"text": text}
