"""Python's CEL libraries side by side: speed, conformance, limits. ADR 0002 rests on it.

``python -m bench.expressions``. Each peer is installed from PyPI into a virtual environment of its
own under the user's cache folder, since two of them install a module named ``cel``.
"""

import json
import os
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

from bench.expressions.cases import CONFORMANCE, DATA, LIMITS, SPEED
from foundation.settings import Limits
from graph_defs.expressions import Evaluator, Scope

PEERS = {
    "cel-expr-python": "0.1.3",
    "cel-python": "0.5.0",
    "common-expression-language": "0.10.0",
    "python-cel": "0.1.1",
}
OURS = "cel-expr-python"
DRIVER = Path(__file__).with_name("peer.py")


def _python(name: str, version: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "graphwright-bench" / f"{name}-{version}"
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", f"{name}=={version}"], check=True)
        (folder / "installed").touch()
    return python


def _ask(python: Path, name: str, asked: dict[str, Any]) -> dict[str, Any] | str:
    """The driver's answer, or how the process ended without one."""
    try:
        done = subprocess.run(
            [python, DRIVER, name],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "runs for over 60 s"
    if done.returncode:
        return f"process dies with {done.returncode}"
    return json.loads(done.stdout)


def _limits(python: Path, name: str) -> list[str]:
    data = {"s": "x" * 1000, "l100": list(range(100)), "l1000": list(range(1000))}
    found: list[str] = []
    for _, expression in LIMITS:
        start = time.perf_counter()
        answer = _ask(python, name, {"cases": [[expression, data]], "timed": []})
        took = time.perf_counter() - start
        if isinstance(answer, str):
            found.append(answer)
        elif answer["results"][0] == "error":
            found.append("refused")
        else:
            found.append(f"evaluated, {took:.1f} s")
    return found


def _evaluator_microseconds(expression: str, data: dict[str, Any]) -> float:
    """The same expression through our Evaluator, with ``params.`` before its variables."""
    names = "".join(f"cel.bind({name}, params.{name}, " for name in data if name in expression)
    source = f"{names}{expression}{')' * names.count('cel.bind')}"
    with Evaluator(Limits()) as evaluator:
        template = evaluator.compile(f"${{{{ {source} }}}}")
        scope = Scope(data, {}, {}, {})
        start = time.perf_counter()
        evaluator.evaluate(template, scope)
        count = max(1, min(20_000, int(0.1 / (time.perf_counter() - start))))
        start = time.perf_counter()
        for _ in range(count):
            evaluator.evaluate(template, scope)
        return (time.perf_counter() - start) / count * 1e6


def _table(head: list[str], rows: list[list[str]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")
    print()


def main() -> int:
    asked = {
        "cases": [[expression, DATA] for expression, _ in CONFORMANCE],
        "timed": [[expression, data] for _, expression, data in SPEED],
    }
    pythons = {name: _python(name, version) for name, version in PEERS.items()}
    answers: dict[str, dict[str, Any]] = {}
    for name, python in pythons.items():
        answer = _ask(python, name, asked)
        if isinstance(answer, str):
            print(f"{name}: {answer}", file=sys.stderr)
            return 1
        answers[name] = answer
    names = [f"{name} {version}" for name, version in PEERS.items()]

    print(f"Microseconds an evaluation (times {OURS})\n")
    rows: list[list[str]] = []
    for index, (label, expression, data) in enumerate(SPEED):
        base = answers[OURS]["microseconds"][index]
        cells = [answers[name]["microseconds"][index] for name in PEERS]
        shown = ["–" if each is None else f"{each:,.1f} ({each / base:.1f})" for each in cells]
        rows.append([label, *shown, f"{_evaluator_microseconds(expression, data):,.1f}"])
    _table(["expression", *names, "our Evaluator"], rows)

    print("Conformance\n")
    rows = []
    passed = dict.fromkeys(PEERS, 0)
    for index, (expression, expected) in enumerate(CONFORMANCE):
        got = {name: answers[name]["results"][index] for name in PEERS}
        for name in PEERS:
            passed[name] += got[name] == expected
        if any(each != expected for each in got.values()):
            cells = ["ok" if got[name] == expected else f"`{got[name]}`" for name in PEERS]
            rows.append([f"`{expression.replace('|', chr(92) + '|')}`", f"`{expected}`", *cells])
    rows.append(["**passed**", str(len(CONFORMANCE)), *(str(passed[name]) for name in PEERS)])
    _table(["expression", "cel-spec", *names], rows)

    print("Limits\n")
    columns = {name: _limits(python, name) for name, python in pythons.items()}
    rows = [
        [label, *(columns[name][index] for name in PEERS)]
        for index, (label, _) in enumerate(LIMITS)
    ]
    _table(["expression", *names], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
