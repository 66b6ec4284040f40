"""Scientific workflows, traced: WfCommons' WfFormat 1.5 to a graph document that replays the trace.

Format: https://github.com/wfcommons/WfFormat. A task becomes a ``work.sleep`` node that sleeps as
long as the task ran, scaled so that the critical path takes a given time; its parents become needs.
"""

import hashlib
import re
from dataclasses import dataclass

import networkx as nx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from foundation.errors import Fault, Invalid
from graph_defs.json_values import Json, JsonObject, pointer
from graph_defs.names import is_graph_name, is_node_name
from graph_defs.suggestions import Suggester
from graph_defs.validation.translation import translate
from node_types.work_sleep import MAX_SECONDS

_MAX_NAME = 63
_DIGITS = 6


class _Part(BaseModel):
    """A part of the trace: what is not named here is of no use to us, and may be anything."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Task(_Part):
    id: str = Field(min_length=1)
    parents: list[str] = []
    children: list[str] = []


class _Specification(_Part):
    tasks: list[_Task] = Field(min_length=1)


class _Execution(_Part):
    id: str
    seconds: float = Field(alias="runtimeInSeconds", ge=0, allow_inf_nan=False)


class _Executions(_Part):
    tasks: list[_Execution]


class _Workflow(_Part):
    specification: _Specification
    execution: _Executions


class _Instance(_Part):
    name: str = ""
    version: str = Field(alias="schemaVersion", pattern=r"^1\.5$")
    workflow: _Workflow


@dataclass(frozen=True, slots=True)
class _Trace:
    name: str
    graph: "nx.DiGraph[str]"
    """Tasks in the order of the trace, with an edge from each parent to its child."""
    seconds: dict[str, float]


def convert(instance: Json, critical_path_seconds: float = 2.0) -> tuple[JsonObject, list[str]]:
    """A graph document that replays a trace, and notes on what could not be taken over as it is.

    Names that do not fit ours are changed: the same trace always gives the same names, each at most
    63 characters and unique, and a name that fits stays. The outputs are the seconds of the tasks
    that nothing depends on.

    Args:
        instance: a WfFormat 1.5 document, read from JSON.
        critical_path_seconds: what the longest chain of tasks shall take, 0 or more.

    Raises:
        Invalid: it is no such document, or contradicts itself; pointers lead into ``instance``.
    """
    trace = _read(instance)
    scale = _scale(trace, critical_path_seconds)
    notes: list[str] = []
    name = _graph_name(trace.name, notes)
    names = _node_names(list(trace.graph), notes)
    nodes: JsonObject = {}
    for task in trace.graph:
        node: JsonObject = {"type": "work.sleep"}
        if parents := list(trace.graph.predecessors(task)):
            node["needs"] = [names[parent] for parent in parents]
        node["with"] = {"seconds": min(round(trace.seconds[task] * scale, _DIGITS), MAX_SECONDS)}
        nodes[names[task]] = node
    last = [names[task] for task in trace.graph if not trace.graph.out_degree(task)]
    document: JsonObject = {
        "apiVersion": "graphwright/v1",
        "kind": "Graph",
        "metadata": {
            "name": name,
            "description": f"Replays a WfCommons trace of {trace.graph.number_of_nodes()} tasks and"
            f" {trace.graph.number_of_edges()} edges, with run times multiplied by {scale:.3g}.",
            "labels": {"source": "wfcommons"},
        },
        "nodes": nodes,
        "outputs": {task: f"${{{{ nodes.{task}.output.seconds }}}}" for task in last},
    }
    return document, notes


def _read(instance: Json) -> _Trace:
    try:
        model = _Instance.model_validate(instance)
    except ValidationError as error:
        raise _invalid(translate(error, _Instance, instance, (), Suggester())) from error
    tasks = model.workflow.specification.tasks
    seconds = {task.id: task.seconds for task in model.workflow.execution.tasks}
    graph: nx.DiGraph[str] = nx.DiGraph()
    faults: list[Fault] = []
    for index, task in enumerate(tasks):
        if task.id in graph:
            faults.append(_fault(index, "id", "duplicate_task", f"Task {task.id!r} is repeated."))
        if task.id not in seconds:
            message = f"Task {task.id!r} has no run time in workflow.execution.tasks."
            faults.append(_fault(index, "id", "missing_runtime", message))
        graph.add_node(task.id)
    for index, task in enumerate(tasks):
        for other in sorted({*task.parents, *task.children} - graph.nodes):
            where = "parents" if other in task.parents else "children"
            message = f"Task {task.id!r} refers to {other!r}, which is not there."
            faults.append(_fault(index, where, "missing_task", message))
        graph.add_edges_from((parent, task.id) for parent in task.parents)
        graph.add_edges_from((task.id, child) for child in task.children)
    if not faults and not nx.is_directed_acyclic_graph(graph):
        cycle: list[str] = next(iter(nx.simple_cycles(graph)))
        message = f"Tasks wait for each other: {' -> '.join([*cycle, cycle[0]])}."
        faults.append(Fault("/workflow/specification/tasks", "cycle", message))
    if faults:
        raise _invalid(faults)
    return _Trace(model.name, graph, seconds)


def _scale(trace: _Trace, wanted: float) -> float:
    """What to multiply run times with, so that the longest chain of tasks takes ``wanted``."""
    finished: dict[str, float] = {}
    for task in nx.topological_sort(trace.graph):
        before = (finished[parent] for parent in trace.graph.predecessors(task))
        finished[task] = max(before, default=0.0) + trace.seconds[task]
    longest = max(finished.values())
    return wanted / longest if longest else 0.0


def _graph_name(name: str, notes: list[str]) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_MAX_NAME].strip("-")
    if not is_graph_name(slug):
        slug = f"workflow-{slug}"[:_MAX_NAME].strip("-")
    if slug != name:
        notes.append(f"the workflow {name!r} is named {slug!r}")
    return slug


def _node_names(tasks: list[str], notes: list[str]) -> dict[str, str]:
    """A name for each task; tasks whose ids are names keep them, whatever others turn into."""
    names = {task: task for task in tasks if is_node_name(task)}
    taken = set(names.values())
    for task in tasks:
        if task not in names:
            names[task] = _node_name(task, taken)
            taken.add(names[task])
            notes.append(f"the task {task!r} is named {names[task]!r}")
    return names


def _node_name(task: str, taken: set[str]) -> str:
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", task)
    if not re.match(r"[A-Za-z_]", plain):
        plain = f"_{plain}"
    if is_node_name(plain) and plain not in taken:
        return plain
    length = 8  # too long, reserved or taken: the end of an id tells most, a hash makes it unique
    digest = hashlib.sha256(task.encode(errors="replace")).hexdigest()
    while True:
        tail = plain[-(_MAX_NAME - length - 2) :].lstrip("_")
        name = (
            f"_{tail}_{digest[:length]}" if not tail[:1].isalpha() else f"{tail}_{digest[:length]}"
        )
        if name not in taken:
            return name
        length += 4


def _fault(index: int, field: str, code: str, message: str) -> Fault:
    return Fault(pointer(("workflow", "specification", "tasks", index, field)), code, message)


def _invalid(faults: list[Fault]) -> Invalid:
    return Invalid(
        "This is no WfCommons instance that can be converted.",
        faults,
        hint="Give a WfFormat 1.5 instance, such as those of WfInstances.",
    )
