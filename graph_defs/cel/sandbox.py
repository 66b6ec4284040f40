"""The process in which costly expressions run: ``python -P -m graph_defs.cel.sandbox``.

It answers one request at a time over its standard input and output, each a frame: four bytes of
length, big-endian, then JSON. Nothing of ours but graph_defs/cel is imported, so that it starts
fast and small. It ends when its input does, at the latest once the running evaluation's alarm
rings, so it cannot outlive its parent for long. Memory is bounded on Linux only; elsewhere time is.

Request ``{"program": base64, "variables": {…}, "seconds": 5.0, "reply_bytes": 1000}``; reply
``{"value": …}`` or ``{"fault": kind, "message": …, "hint": …}``, where kind is ``evaluation``,
``value`` or ``cost``. A breach of memory or time ends the process instead.
"""

import base64
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import IO, Any, Final

import orjson

from graph_defs.cel import runtime as cel_runtime
from graph_defs.cel.faults import EvaluationFault, ValueFault

LENGTH: Final = struct.Struct(">I")
READY: Final = b"ready"
MEMORY_EXIT: Final = 3


def read_frame(stream: IO[bytes]) -> bytes | None:
    """One frame's content, or None at the end of the stream, within a frame too."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    content = stream.read(length)
    return content if len(content) == length else None


def write_frame(stream: IO[bytes], content: bytes) -> None:
    stream.write(LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def main(memory_bytes: int) -> int:
    """Serves until the input ends; ``memory_bytes`` may be allocated beyond what starting takes."""
    # Ctrl-C goes to every process of a terminal; this one ends with its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    environment = cel_runtime.Environment()
    cel_runtime.evaluate(environment.load(environment.compile("[1].map(x, x)")), {})
    _limit_memory(memory_bytes)
    write_frame(replies, READY)
    while (content := read_frame(requests)) is not None:
        try:
            reply = _answer(environment, content)
        except MemoryError:
            return MEMORY_EXIT
        write_frame(replies, reply)
    return 0


def _limit_memory(memory_bytes: int) -> None:
    if sys.platform != "linux":
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bound = pages * resource.getpagesize() + memory_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        bound = min(bound, hard)
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


def _answer(environment: cel_runtime.Environment, content: bytes) -> bytes:
    request = orjson.loads(content)
    program = environment.load(base64.b64decode(request["program"]))
    # The default action of SIGALRM ends the process, wherever in cel-cpp it is.
    signal.setitimer(signal.ITIMER_REAL, request["seconds"])
    try:
        reply = orjson.dumps(_evaluate(program, request["variables"]))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if len(reply) > request["reply_bytes"]:
        return orjson.dumps(
            {
                "fault": "cost",
                "message": f"its result has more than {request['reply_bytes']} bytes",
                "hint": "Return less: select the fields that are needed.",
            }
        )
    return reply


def _evaluate(program: Any, variables: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"value": cel_runtime.evaluate(program, variables)}
    except EvaluationFault as fault:
        return {"fault": "evaluation", "message": fault.raw, "hint": ""}
    except ValueFault as fault:
        return {"fault": "value", "message": fault.message, "hint": fault.hint}


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
