"""``file.read``: a CSV, JSON, JSON Lines or text file, from where the operator allows."""

from pathlib import Path, PurePath
from typing import Literal

from pydantic import Field, JsonValue, RootModel

from node_types.base import Fields, NodeCancelled, NodeContext, NodeError, ThreadNodeType

Format = Literal["csv", "json", "jsonl", "text"]

_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".json": "json",
    ".geojson": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "text",
    ".md": "text",
    ".log": "text",
}


class FileNotAllowedError(NodeError):
    """The path leads outside the folders that the operator allows."""

    code = "file_not_allowed"


class FileMissingError(NodeError):
    """There is no such file."""

    code = "file_not_found"


class FileTooLargeError(NodeError):
    """The file is larger than a node may read."""

    code = "file_too_large"


class FileUnreadableError(NodeError):
    """The file is not in the format that it should be in, or reading it failed."""

    code = "file_unreadable"


class Read(Fields):
    """Which file to read, and how."""

    path: str = Field(
        min_length=1,
        description="Below a folder that the operator allows (`GRAPHWRIGHT_FILE_ROOTS`). A "
        "relative path is looked up in each of them, in order.",
    )
    format: Format | None = Field(
        default=None, description="What the file holds; by default, what its extension says."
    )
    nulls: list[str] = Field(
        default=[""], description="CSV only: cells that mean a missing value, and are read as null."
    )


class Rows(Fields):
    """A CSV file (each row an object with the header's names) or a JSON Lines file."""

    rows: list[JsonValue]


class Value(Fields):
    """A JSON file."""

    value: JsonValue


class Text(Fields):
    """Any other file, as UTF-8."""

    text: str


Content = RootModel[Rows | Value | Text]

_BLOCK = 2**20
"""Bytes read between two looks at whether the node is to end."""


class FileRead(ThreadNodeType[Read, Content]):
    """Reads one UTF-8 file whole. The output is ``{rows}``, ``{value}`` or ``{text}``.

    The cells of a CSV column share one type: int if each is one that JSON holds exactly (and has no
    leading zero, so that codes stay text), else float, else bool (``true`` or ``false``), else str.
    """

    name = "file.read"
    version = 1
    effects = "none"
    With = Read
    Output = Content

    def run_blocking(self, given: Read, context: NodeContext) -> Content:
        form = given.format or _FORMATS.get(PurePath(given.path).suffix.lower())
        if form is None:
            raise FileUnreadableError(
                f"The extension of {given.path!r} does not say what the file holds.",
                hint="Add `format: csv`, `json`, `jsonl` or `text`.",
            )
        text = _read_text(given.path, context)
        if form == "text":
            return Content(Text(text=text))
        from node_types.support import formats

        try:
            if form == "json":
                return Content(Value(value=formats.read_json(text)))
            if form == "jsonl":
                return Content(Rows(rows=formats.read_json_lines(text)))
            return Content(Rows(rows=formats.read_csv(text, frozenset(given.nulls))))
        except formats.FormatError as error:
            raise FileUnreadableError(f"{given.path!r} is no valid {form}: {error}") from error


def _read_text(path: str, context: NodeContext) -> str:
    file = _find(path, context.policy.file_roots)
    limit = context.policy.max_input_bytes
    content = bytearray()
    try:
        with file.open("rb", buffering=0) as stream:
            while len(content) <= limit and (block := stream.read(_BLOCK)):
                if context.cancelled.is_set():
                    raise NodeCancelled(f"Reading {path!r} was cancelled.")
                content += block
    except OSError as error:
        raise FileUnreadableError(f"{path!r} cannot be read: {error.strerror}.") from error
    if len(content) > limit:
        raise FileTooLargeError(
            f"{path!r} is larger than {limit:,} bytes.", hint="Split the file, or ask the operator."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileUnreadableError(
            f"{path!r} is not UTF-8: byte {error.start:,} does not fit.",
            hint="Convert the file to UTF-8.",
        ) from error


def _find(path: str, roots: tuple[Path, ...]) -> Path:
    """The regular file that ``path`` names, links followed, below one of the roots."""
    allowed = False
    for root in roots:
        try:
            base = root.resolve()
            file = (base / path).resolve()
            if not file.is_relative_to(base):
                continue
            allowed = True
            if file.is_file():
                return file
        except (OSError, ValueError, RuntimeError):  # a loop of links, a NUL, too long a name
            continue
    if allowed:
        raise FileMissingError(f"There is no file {path!r} below the folders that may be read.")
    raise FileNotAllowedError(
        f"{path!r} is not below a folder that may be read.",
        hint="Give a path below one of the operator's GRAPHWRIGHT_FILE_ROOTS.",
    )
