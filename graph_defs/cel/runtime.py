"""The binding of cel-cpp as Graphwright sets it up: its functions, and how it fails."""

import re
from collections.abc import Mapping
from typing import Any, Final

from cel_expr_python import cel

from graph_defs.cel import values as cel_values
from graph_defs.cel.faults import CompileFault, EvaluationFault

ROOTS: Final = ("params", "nodes", "run", "trigger", "secrets")
"""The variables that an expression sees."""

# Left out: `optional` and `lists` from version 3 on (first, last), since the binding crashes the
# process when a result holds an optional; `regex`, whose extract() returns one.
_CONFIG: Final = """\
name: graphwright
extensions:
  - name: strings
  - name: math
  - name: encoders
  - name: bindings
  - name: sets
  - name: lists
    version: 2
"""
_POSITION: Final = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_STATUS: Final = re.compile(r"^[A-Z_]+: |\s*\[[A-Z_]+\]$")
DEPTH_HINT: Final = (
    "At most 32 levels, where each operator of a chain such as a + b + c counts as one; "
    "use cel.bind(), or split it over several nodes."
)


class Environment:
    """Compiles expressions over `ROOTS` and evaluates them. Threads may share it."""

    def __init__(self) -> None:
        self._env = cel.NewEnv(
            config=cel.NewEnvConfigFromYaml(_CONFIG),
            variables=dict.fromkeys(ROOTS, cel.Type.DYN),
        )

    def compile(self, source: str) -> bytes:
        """The checked syntax tree, serialised for `cel_ast.decode`. Raises `CompileFault`."""
        try:
            return self._env.compile(source).serialize()
        except RuntimeError as error:
            raise _compile_fault(str(error)) from None

    def load(self, serialized: bytes) -> cel.Expression:
        """The program of a tree from `cel_ast.encode`. Raises `CompileFault`."""
        try:
            return self._env.deserialize(serialized)
        except RuntimeError as error:
            raise _compile_fault(str(error)) from None


def evaluate(program: cel.Expression, variables: Mapping[str, Any]) -> Any:
    """The value of ``program`` as JSON. Raises `EvaluationFault` and `ValueFault`.

    It holds the interpreter's lock from beginning to end.
    """
    try:
        value = program.eval(data=variables)
        plain = value.plain_value()
    except (RuntimeError, TypeError, SystemError) as error:
        raise EvaluationFault(_STATUS.sub("", str(error))) from None
    if value.type() == cel.Type.ERROR:
        raise EvaluationFault(_STATUS.sub("", str(plain)))
    return cel_values.to_json(plain)


def _compile_fault(raw: str) -> CompileFault:
    found = _POSITION.findall(raw)
    if "recursion" in raw:
        return CompileFault("the expression is nested too deeply", DEPTH_HINT)
    if not found:
        return CompileFault(_STATUS.sub("", raw.strip()))
    # The first error is the cause; the following ones are mostly its consequences.
    line, column, message = found[0]
    return CompileFault(f"line {line}, column {column}: {_reworded(message)}", _advice(message))


def _reworded(message: str) -> str:
    text = _STATUS.sub("", message).replace(" (in container '')", "")
    text = re.sub(r"\s*expecting \{.*$", "", text)
    return text.replace("mismatched input '<EOF>'", "the expression ends too early")


def _advice(message: str) -> str:
    if message.startswith("undeclared reference"):
        return (
            f"An expression sees {', '.join(ROOTS)}, and CEL's functions and macros; "
            "a text needs quotes."
        )
    if "no matching overload" in message:
        return "Convert with int(), double() or string(), or set the types aside with dyn()."
    return ""
