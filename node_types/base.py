"""What a node type is: a name, a version, two pydantic models and one function.

To add a node type, add one file to this package with one class that derives from one of the kinds
below; the catalogue finds it by itself. Heavy imports go inside the function, so that a process
that only validates graphs does not pay for them.

=====================  ====================================  ===================================
Kind                   Its function                          For
=====================  ====================================  ===================================
InlineNodeType         ``compute``, on the event loop        what takes microseconds
LoopNodeType           ``run``, a coroutine on the loop      waiting for the network or the time
ThreadNodeType         ``run_blocking``, in a thread         files, libraries that block
ProcessNodeType        ``compute``, in a process of a pool   what keeps a CPU busy
PlatformNodeType       none here: see its docstring          images, and services of clouds
=====================  ====================================  ===================================
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue

from foundation.errors import GraphwrightError

Effects = Literal["none", "external"]
"""``none``: the node may run again after a crash, unseen. ``external``: it changes, or may change,
something outside, so it starts only when everything upstream and its own start are committed."""

RunsOn = Literal["inline", "loop", "thread", "process", "platform"]
"""Where the function runs: on the worker's event loop, by a plain call or as a coroutine; in a
thread because it blocks; in a process of its own because it computes; or on another platform, which
the worker only watches."""


@dataclass(frozen=True, slots=True)
class NodePolicy:
    """What the operator of the installation allows nodes to do."""

    file_roots: tuple[Path, ...] = ()
    """Folders below which files may be read; relative paths are looked up in them, in order."""
    http_private: bool = False
    """Whether loopback, private and link-local addresses may be called."""
    max_input_bytes: int = 64 * 2**20
    """Bytes that one node may read from one file or one response."""


class Cancelled(Protocol):
    """Whether an attempt is to end: its run was cancelled, or its time is over.

    The reader's half of a ``threading.Event``. Any thread may ask.
    """

    def is_set(self) -> bool:
        """Whether it is to end."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is to end, at most ``timeout`` seconds. Says whether it is."""
        ...


@dataclass(frozen=True, slots=True)
class NodeContext:
    """Where one attempt of one node runs, and what it may use."""

    tenant: str
    run_id: str
    node: str
    attempt: int
    """Counts from 1."""
    key: str
    """The same for every attempt of this node in this run: an idempotency key for the outside."""
    started_at: datetime
    """When this attempt first started: the same after the run has changed its worker."""
    policy: NodePolicy
    log: Callable[[str, str], None]
    """``log(level, message)`` becomes a ``node.log`` event. Levels: debug, info, warning, error."""
    materialize: Callable[[Sequence[str], Mapping[str, JsonValue]], None]
    """``materialize(asset_key, metadata)`` records that the node wrote this asset."""
    wait: Callable[[datetime], Awaitable[None]]
    """``await wait(until)``. A run that does nothing but wait long leaves its worker meanwhile; the
    node is then called again from its beginning, with the same ``started_at``. So wait only in
    nodes without effects, and until a time that follows from ``started_at`` and ``with``."""
    cancelled: Cancelled = field(default_factory=threading.Event)
    """For nodes in threads, which nobody can stop: look at it between blocks of work, wait by its
    ``wait`` where there is nothing to do, and when it is set clean up and raise
    :class:`NodeCancelled`. A thread that does not listen is abandoned after a grace
    (``cancel_grace_seconds``) and blocks its place until it ends. Other kinds need it not: a
    coroutine gets ``CancelledError`` and has the same grace to clean up, a process is killed."""


class NodeError(GraphwrightError):
    """A node could not do its work, by fault of its inputs or of the outside world.

    Each way of failing is a subclass with a ``code`` of its own. Message and hint are shown to the
    graph's author, so they hold no secret: of a URL only scheme and host, of a header only its
    name, of a file only the path that the author wrote.
    """

    code = "node_failed"
    status = 422


class OutputTooLarge(NodeError):
    """A node produced more than the installation stores."""

    code = "output_too_large"


class NodeCancelled(NodeError):
    """The node has ended early because ``context.cancelled`` told it to."""

    code = "node_cancelled"


class Fields(BaseModel):
    """Base of the models of ``with`` and of outputs: immutable, and no unknown field passes."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        serialize_by_alias=True,
        hide_input_in_errors=True,  # a part of a value would not be known for a secret's
    )


W = TypeVar("W", bound=BaseModel)
O = TypeVar("O", bound=BaseModel)  # noqa: E741


class NodeType(ABC, Generic[W, O]):
    """One kind of node. Instances hold no state: one serves every run of a process."""

    name: ClassVar[str]
    """What a document writes as ``type``: lower-case words with dots, such as ``file.read``."""
    version: ClassVar[int]
    """Raised when the same ``with`` starts to mean something else."""
    effects: ClassVar[Effects]
    runs_on: ClassVar[RunsOn]
    secret_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields of ``with``, as documents name them, in which ``${{ secrets.NAME }}`` may stand: what
    goes outside, and what the output does not repeat. In all that the node hands back, logs or
    fails by, the secrets' values become ``***``."""
    needs_worker: ClassVar[bool] = False
    """Whether it takes what workers alone have, a Docker socket or rights in the cluster: the
    container or pod of a single run has neither."""
    With: type[W]
    """The node's ``with``, after its expressions were evaluated."""
    Output: type[O]
    """What ``nodes.<id>.output`` is; a ``RootModel`` where it is not an object."""


class InlineNodeType(NodeType[W, O]):
    """A node type that is a quick, pure function of its ``with``: microseconds, no waiting."""

    runs_on = "inline"

    @abstractmethod
    def compute(self, given: W) -> O:
        """Do the node's work, on the event loop.

        Raises:
            NodeError: the work cannot be done.
        """


class LoopNodeType(NodeType[W, O]):
    """A node type whose work is asynchronous: it awaits and never blocks."""

    runs_on = "loop"

    @abstractmethod
    async def run(self, given: W, context: NodeContext) -> O:
        """Do the node's work.

        Raises:
            NodeError: the work cannot be done.
        """


class ThreadNodeType(NodeType[W, O]):
    """A node type whose work blocks: reading files, calling a library that waits."""

    runs_on = "thread"

    @abstractmethod
    def run_blocking(self, given: W, context: NodeContext) -> O:
        """Do the node's work, in a thread of the worker's.

        Raises:
            NodeError: the work cannot be done.
        """


class ProcessNodeType(NodeType[W, O]):
    """A node type that computes for long: a pure function of its ``with``, in another process.

    Function and ``with``, output and errors are pickled on the way. It logs nothing: in that
    process nobody strikes secrets out.
    """

    runs_on = "process"

    @abstractmethod
    def compute(self, given: W) -> O:
        """Do the node's work, in a process of the worker's pool.

        Raises:
            NodeError: the work cannot be done.
        """


class PlatformNodeType(NodeType[W, O]):
    """A node type whose work is done elsewhere: by an image, or by a service of a cloud.

    What starts it there, follows it and ends it is in ``dynamic_jobs/platforms``, by ``name``. Its
    ``Output`` is made of what the work reported through Dagster Pipes.
    """

    runs_on = "platform"
