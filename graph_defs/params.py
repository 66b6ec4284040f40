"""A run's params: the graph's schema applied to what was given."""

import orjson

from foundation.errors import Fault, Invalid, TooLarge
from foundation.settings import Limits
from graph_defs.cel.faults import NotQuick
from graph_defs.json_schema import (
    MAX_WORK,
    Checker,
    Index,
    Meter,
    Problem,
    TooMuchWorkError,
    check_schema,
    fill_defaults,
)
from graph_defs.json_values import Json, JsonObject, check_content, normal, pointer
from graph_defs.suggestions import Suggester

BASE = ("params",)

_QUICK_WORK = 50_000
"""At most some 50 ms, and mostly far less: a pattern that is compiled counts for 2,000."""

_CODES = {
    "required": "missing_field",
    "additionalProperties": "unknown_field",
    "type": "wrong_type",
}


def check_params_schema(schema: JsonObject, suggester: Suggester) -> list[Fault]:
    """Every fault of a graph document's ``params``, with pointers under ``/params``.

    Codes: ``invalid_params_schema``; ``remote_ref`` where it leads out of the document.
    """
    faults = check_schema(schema, BASE, suggester)
    if schema.get("type", "object") != "object":
        faults.append(
            Fault(
                pointer((*BASE, "type")),
                "invalid_params_schema",
                "A run's params are an object.",
                "Use `type: object`, and name each param in `properties`.",
            )
        )
    return faults


class ParamsSchema:
    """A graph's schema of its params, ready for any number of runs.

    ``schema`` is that of a document that was validated, and is not checked again. Without one, no
    params are taken.
    """

    def __init__(self, schema: JsonObject | None) -> None:
        self._schema = schema
        self._index = None if schema is None else Index(schema)

    def bind(self, given: Json, limits: Limits, *, quickly: bool = False) -> JsonObject:
        """What a run gets as ``params``: ``given`` with defaults filled in, if it fits the schema.

        Defaults are filled in as :func:`graph_defs.json_schema.fill_defaults` says, before the
        check. Whole numbers come as int.

        Raises:
            TooLarge: more than ``limits.max_params_bytes`` as JSON, before or after that.
            Invalid: it does not fit, or the check takes too much work; pointers are under
                ``/params``.
            NotQuick: it was asked for ``quickly``, and the check may take more than 50 ms.
        """
        faults = check_content(given, limits.max_depth, BASE)
        if faults:
            raise _invalid(faults)
        _check_size(given, limits)
        if not isinstance(given, dict):
            raise _invalid([Fault("/params", "wrong_type", "The params must be an object.")])
        if self._schema is None or self._index is None:
            if given:
                raise _invalid([_unexpected(name) for name in given])
            return {}
        meter = Meter(_QUICK_WORK if quickly else MAX_WORK)
        try:
            bound = fill_defaults(self._schema, normal(given), self._index, meter)
            problems = Checker(self._index, meter).check(self._schema, bound, BASE)
        except (TooMuchWorkError, RecursionError) as error:
            if quickly:
                raise NotQuick from None
            raise _invalid(
                [Fault("/params", "too_costly", "The params take too much work to check.")]
            ) from error
        if problems:
            raise _invalid(_faults(problems, self._schema))
        assert isinstance(bound, dict)
        _check_size(bound, limits)
        return bound


def bind_params(schema: JsonObject | None, given: Json, limits: Limits) -> JsonObject:
    """:meth:`ParamsSchema.bind` for one run."""
    return ParamsSchema(schema).bind(given, limits)


def _check_size(params: Json, limits: Limits) -> None:
    if (size := len(orjson.dumps(params))) > limits.max_params_bytes:
        raise TooLarge(
            f"The params have {size:,} bytes; {limits.max_params_bytes:,} are allowed.",
            hint="Put large data into a file or a URL, and pass that.",
        )


def _faults(problems: list[Problem], schema: JsonObject) -> list[Fault]:
    properties = schema.get("properties")
    names = properties if isinstance(properties, dict) else {}
    suggester = Suggester()
    return [
        Fault(
            pointer(problem.path),
            _CODES.get(problem.keyword, "bad_value"),
            problem.message,
            suggester.did_you_mean(str(problem.path[1]), names)
            if problem.keyword == "additionalProperties" and len(problem.path) == 2
            else "",
        )
        for problem in problems
    ]


def _unexpected(name: str) -> Fault:
    return Fault(
        pointer((*BASE, name)),
        "unknown_field",
        f"The graph declares no params, so there is no `{name}`.",
        "Declare it in the graph document, under `params.properties`.",
    )


def _invalid(faults: list[Fault]) -> Invalid:
    return Invalid("The params do not fit the graph.", faults)
