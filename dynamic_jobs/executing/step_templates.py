"""Step events as text with slots: what differs between two events of a kind is filled in.

Serializing an event through Dagster takes about 120 µs, and a node has four. So each kind is
serialized once, by Dagster, from an event full of marks, and cut at the marks. What is filled in is
JSON already: names are identifiers, and hold nothing that JSON would escape.
"""

import re
from dataclasses import dataclass
from typing import Final

from dagster import DagsterEventType, EventLogEntry
from dagster._serdes import serialize_value

JOB: Final = "@job@"
NODE: Final = "@node@"
RUN: Final = "@run@"
DURATION: Final = "@duration@"
VALUE: Final = "@value@"

TIME_MARK: Final = 1234567890.125
PID_MARK: Final = 987654321
MILLISECONDS_MARK: Final = 123456789.0625
BYTES_MARK: Final = 987654322

_SLOTS: Final = {
    JOB: "job",
    NODE: "node",
    RUN: "run",
    DURATION: "duration",
    f'"{VALUE}"': "value",
    str(TIME_MARK): "time",
    str(PID_MARK): "pid",
    str(MILLISECONDS_MARK): "milliseconds",
    str(BYTES_MARK): "bytes",
}
_MARKS: Final = re.compile("|".join(re.escape(mark) for mark in _SLOTS))


@dataclass(frozen=True, slots=True)
class StepTemplate:
    """One kind of step event, cut at its slots."""

    kind: DagsterEventType
    _parts: tuple[str, ...]
    """Text and names of slots in turn, beginning and ending with text."""

    @classmethod
    def of(cls, kind: DagsterEventType, entry: EventLogEntry) -> "StepTemplate":
        """Cut an entry that was built with the marks of this module."""
        text = serialize_value(entry)
        pieces: list[str] = []
        end = 0
        for mark in _MARKS.finditer(text):
            pieces += [text[end : mark.start()], _SLOTS[mark.group()]]
            end = mark.end()
        return cls(kind, (*pieces, text[end:]))

    def fill(self, **slots: str) -> str:
        """The event's JSON. ``slots`` are JSON texts, and names without their quotes."""
        parts = list(self._parts)
        parts[1::2] = [slots[name] for name in parts[1::2]]
        return "".join(parts)
