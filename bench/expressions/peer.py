"""Runs in the virtual environment of one CEL library, without our packages: ``LIBRARY < cases``.

Reads ``{"cases": [[expression, data], …], "timed": [[expression, data], …]}`` and prints
``{"results": [text, …], "microseconds": [number or null, …]}``. A result is a value in CEL's words,
such as ``int 1``, or ``error``.
"""

import datetime
import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any, cast

Run = Callable[[], Any]


def _cel_expr_python(expression: str, data: dict[str, Any]) -> Run:
    cel = importlib.import_module("cel_expr_python.cel")
    extensions = "".join(f"  - name: {name}\n" for name in ("strings", "math", "lists"))
    config = cel.NewEnvConfigFromYaml(f"name: bench\nextensions:\n{extensions}")
    env = cel.NewEnv(config=config, variables=dict.fromkeys(data, cel.Type.DYN))
    program = env.compile(expression)

    def run() -> Any:
        value = program.eval(data=data)
        if value.type() == cel.Type.ERROR:
            raise ValueError(value.plain_value())
        return value.plain_value()

    return run


def _cel_python(expression: str, data: dict[str, Any]) -> Run:
    celpy = importlib.import_module("celpy")
    env = celpy.Environment()
    program = env.program(env.compile(expression))
    return lambda: program.evaluate({key: celpy.json_to_cel(value) for key, value in data.items()})


def _common_expression_language(expression: str, data: dict[str, Any]) -> Run:
    program = importlib.import_module("cel").compile(expression)
    return lambda: program.execute(data)


def _python_cel(expression: str, data: dict[str, Any]) -> Run:
    cel = importlib.import_module("cel")
    program = cel.Program(expression)
    return lambda: program.execute(cel.Context(variables=data))


PREPARE = {
    "cel-expr-python": _cel_expr_python,
    "cel-python": _cel_python,
    "common-expression-language": _common_expression_language,
    "python-cel": _python_cel,
}


def in_cel(value: Any) -> str:  # noqa: PLR0911 - one for each kind of value
    """A value with its CEL type, whatever subclass of a Python type the library makes of it."""
    if value is None:
        return "null"
    if isinstance(value, bool) or type(value).__name__ == "BoolType":
        return f"bool {str(bool(value)).lower()}"
    for kind, name in ((int, "int"), (float, "double"), (str, "string")):
        if isinstance(value, kind):
            return f"{name} {kind(value)}"
    if isinstance(value, bytes | bytearray):
        return f"bytes {bytes(value).hex()}"
    if isinstance(value, datetime.datetime):
        return f"timestamp {value.astimezone(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, datetime.timedelta):
        return f"duration {value.total_seconds():g}s"
    if isinstance(value, list | tuple):
        return f"[{', '.join(in_cel(each) for each in cast('list[Any]', value))}]"
    if isinstance(value, dict):
        members = cast("dict[Any, Any]", value).items()
        return f"{{{', '.join(sorted(f'{in_cel(k)}: {in_cel(v)}' for k, v in members))}}}"
    return f"{type(value).__name__} {value}"


def _result(library: str, expression: str, data: dict[str, Any]) -> str:
    try:
        return in_cel(PREPARE[library](expression, data)())
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "error" if isinstance(error, Exception) else "panic"


def _microseconds(library: str, expression: str, data: dict[str, Any]) -> float | None:
    """Per evaluation of the compiled expression with fresh data, the best of five."""
    try:
        run = PREPARE[library](expression, data)
        start = time.perf_counter()
        run()
    except Exception:
        return None
    count = max(1, min(20_000, int(0.1 / (time.perf_counter() - start))))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(count):
            run()
        best = min(best, time.perf_counter() - start)
    return best / count * 1e6


def main() -> None:
    library = sys.argv[1]
    asked = json.load(sys.stdin)
    results = [_result(library, *case) for case in asked["cases"]]
    microseconds = [_microseconds(library, *case) for case in asked["timed"]]
    print(json.dumps({"results": results, "microseconds": microseconds}))


if __name__ == "__main__":
    main()
