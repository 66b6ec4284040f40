"""The work that is asked of every engine, and the graph documents by which ours does it."""

import json
from dataclasses import dataclass
from typing import Any, Final, Literal

from bench.support.machine import ROOT
from graph_defs.wfcommons import convert

_MONTAGE: Final = ROOT / "examples" / "wfcommons" / "montage-chameleon-2mass-015d-001.json"
_LAYER: Final = 100
_PARENTS: Final = 2


@dataclass(frozen=True, slots=True)
class Work:
    """A chain of nodes, each waiting for the one before.

    A ``transform`` adds one to the value of the node before; a ``sleep`` takes ``seconds``.
    """

    kind: Literal["transform", "sleep"]
    nodes: int
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.nodes}"


CHAIN_10: Final = Work("transform", 10)


def document(name: str, nodes: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "graphwright/v1",
        "kind": "Graph",
        "metadata": {"name": name},
        "nodes": nodes,
    }


def transform(value: object, *needs: str) -> dict[str, Any]:
    return {"type": "data.transform", "needs": list(needs), "with": {"value": value}}


def sleep(seconds: float, *needs: str) -> dict[str, Any]:
    return {"type": "work.sleep", "needs": list(needs), "with": {"seconds": seconds}}


def chain(work: Work, name: str | None = None) -> dict[str, Any]:
    nodes: dict[str, Any] = {}
    for number in range(1, work.nodes + 1):
        before = f"n{number - 1}"
        needs = [before] if number > 1 else []
        if work.kind == "sleep":
            nodes[f"n{number}"] = sleep(work.seconds, *needs)
        else:
            value = f"${{{{ nodes.{before}.output + 1 }}}}" if needs else 1
            nodes[f"n{number}"] = transform(value, *needs)
    return document(name or work.name, nodes)


def fan_out(width: int) -> dict[str, Any]:
    """One node, ``width`` that each use its value, and one that waits for them all."""
    nodes = {"source": transform(1)}
    middle = [f"n{number}" for number in range(width)]
    nodes |= {name: transform("${{ nodes.source.output + 1 }}", "source") for name in middle}
    nodes["joined"] = transform("${{ nodes.n0.output }}", *middle)
    return document(f"fan-out-{width}", nodes)


def layered(count: int, name: str) -> dict[str, Any]:
    """Layers of 100 nodes; each node needs its own column and the next one of the layer above."""
    nodes: dict[str, Any] = {}
    for number in range(count):
        layer, column = divmod(number, _LAYER)
        above = (layer - 1) * _LAYER
        needs = [f"n{above + (column + step) % _LAYER}" for step in range(_PARENTS)]
        value = f"${{{{ nodes.{needs[0]}.output + 1 }}}}" if layer else 1
        nodes[f"n{number}"] = transform(value, *(needs if layer else ()))
    return document(name, nodes)


def montage(name: str = "montage-empty") -> dict[str, Any]:
    """WfCommons' Montage trace (310 tasks, 798 edges) with empty bodies: they sleep for 0 s."""
    found, _ = convert(json.loads(_MONTAGE.read_bytes()), critical_path_seconds=0.0)
    found["metadata"] = {"name": name}
    return found
