"""The examples, published and run through the API as any user would, each shown live."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from rich.markup import escape

from foundation.errors import GraphwrightError
from graphwright.client import Client
from graphwright.client.types import Run
from graphwright.live import EventPrinter

_OUTPUT_CHARACTERS = 2_000


def documents(folder: Path) -> list[Path]:
    """The graph documents below a folder: its YAML files, by path."""
    return sorted(folder.rglob("*.yaml"))


def run_all(client: Client, files: list[Path], show: Callable[[str], None]) -> list[str]:
    """Run each document's graph with its default params; the reasons of those that failed."""
    failures: list[str] = []
    for path in files:
        try:
            failed = _run(client, path, show)
        except GraphwrightError as error:
            failed = str(error)
        if failed:
            show(f"[bold red]{escape(path.name)} failed:[/] {escape(failed)}")
            failures.append(f"{path.name}: {failed}")
    return failures


def _run(client: Client, path: Path, show: Callable[[str], None]) -> str:
    """Publish and run one document; why it failed, empty when it succeeded."""
    graph, _ = client.graphs.apply(path.read_bytes())
    began = time.monotonic()
    run_id = client.runs.start(graph["name"])["run_id"]
    nodes = len(client.runs.get(run_id)["nodes"])
    show(f"\n[bold]{escape(graph['name'])}[/] version {graph['version']}, {nodes} nodes, {run_id}")
    printer = EventPrinter(nodes, show)
    for event in client.runs.events(run_id):
        printer(event)
    run = client.runs.get(run_id)
    seconds = time.monotonic() - began
    if run["status"] != "succeeded":
        return f"run {run_id} {run['status']} {_reason(run)}".strip()
    show(f"[bold green]succeeded[/] in {seconds:.2f} s: {escape(_short(run['outputs']))}")
    return ""


def _reason(run: Run) -> str:
    error = run["error"]
    return json.dumps(error, ensure_ascii=False) if error else ""


def _short(outputs: object) -> str:
    text = json.dumps(outputs, ensure_ascii=False)
    if len(text) <= _OUTPUT_CHARACTERS:
        return text
    return f"{text[:_OUTPUT_CHARACTERS]}… ({len(text)} characters)"
