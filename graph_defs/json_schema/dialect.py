"""Which schemas we take: JSON Schema 2020-12, but for what we would not enforce or could not bound.

Every keyword has a meaning that is enforced, or is an annotation for people (``title``). Unknown
keywords are refused, since a misspelled one would silently allow anything. References stay inside
the schema and never loop without going deeper into the value.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from foundation.errors import Fault
from graph_defs.json_schema.checking import Checker
from graph_defs.json_schema.defaults import fill_defaults
from graph_defs.json_schema.formats import FORMATS
from graph_defs.json_schema.index import IN_PLACE, MANY, NAMED, ONE, Index, Schema, members
from graph_defs.json_schema.scalars import NOUNS, is_number
from graph_defs.json_schema.work import Meter, PatternError, TooMuchWorkError
from graph_defs.json_values import Json, JsonObject, Path, kind_of, pointer
from graph_defs.suggestions import Suggester

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
CODE: Final = "invalid_params_schema"

_Shape = tuple[Callable[[Json], bool], str]


def _is_count(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_names(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_BOOLEAN: Final[_Shape] = (lambda value: isinstance(value, bool), "true or false")
_NUMBER: Final[_Shape] = (is_number, "a number")
_COUNT: Final[_Shape] = (_is_count, "an integer from 0 up")
_TEXT: Final[_Shape] = (lambda value: isinstance(value, str), "a string")
_LIST: Final[_Shape] = (lambda value: isinstance(value, list), "an array")
_ANY: Final[_Shape] = (lambda value: True, "anything")

_SHAPES: Final[Mapping[str, _Shape]] = {
    **dict.fromkeys(ONE, (lambda value: isinstance(value, dict | bool), "a schema")),
    **dict.fromkeys(
        MANY, (lambda value: isinstance(value, list) and len(value) > 0, "an array of schemas")
    ),
    **dict.fromkeys(NAMED, (lambda value: isinstance(value, dict), "an object of schemas")),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _NUMBER),
    "multipleOf": (
        lambda value: isinstance(value, int | float) and is_number(value) and value > 0,
        "a number above 0",
    ),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _COUNT),
    **dict.fromkeys(("minProperties", "maxProperties", "minContains", "maxContains"), _COUNT),
    **dict.fromkeys(("uniqueItems", "deprecated", "readOnly", "writeOnly"), _BOOLEAN),
    **dict.fromkeys(("title", "description", "$comment", "$anchor", "$schema"), _TEXT),
    **dict.fromkeys(("$ref", "pattern", "format"), _TEXT),
    **dict.fromkeys(("enum", "examples"), _LIST),
    **dict.fromkeys(("const", "default"), _ANY),
    "required": (_is_names, "an array of strings"),
    "dependentRequired": (
        lambda value: isinstance(value, dict) and all(map(_is_names, value.values())),
        "an object of arrays of strings",
    ),
    "type": (
        lambda value: isinstance(value, str) or (_is_names(value) and value != []),
        "a type's name or an array of them",
    ),
}

_LEADS_OUT: Final = frozenset({"$id", "$dynamicRef", "$recursiveRef"})
_NOT_ENFORCED: Final = frozenset(
    {"$dynamicAnchor", "$recursiveAnchor", "$vocabulary", "additionalItems", "contentEncoding"}
    | {"contentMediaType", "contentSchema", "definitions", "dependencies"}
)


def check_schema(schema: Schema, base: Path, suggester: Suggester) -> list[Fault]:
    """Every fault of a schema that is at the path ``base`` of its document.

    Codes: ``invalid_params_schema``, and ``remote_ref`` for what leads out of the document. Bounded
    by :data:`graph_defs.json_schema.work.MAX_WORK`; past it, that is the last fault.
    """
    meter = Meter()
    faults: list[Fault] = []
    try:
        faults.extend(_check_all(schema, base, meter, suggester))
    except (TooMuchWorkError, RecursionError):
        faults.append(
            Fault(
                pointer(base),
                CODE,
                "The schema takes too much work to check.",
                "Use fewer patterns, branches and references.",
            )
        )
    return faults


def _check_all(schema: Schema, base: Path, meter: Meter, suggester: Suggester) -> Iterator[Fault]:
    index = Index(schema)
    sound = True
    for place, subschema in index.places.items():
        path = base + index.path(place)
        meter.charge(1)
        if isinstance(subschema, dict):
            for fault in _check_one(subschema, path, index, meter, suggester):
                sound = False
                yield fault
    if not sound:
        return
    loops = list(_find_loops(index, base))
    yield from loops
    if not loops:
        yield from _check_defaults(index, base, meter)


def _check_one(
    schema: JsonObject, path: Path, index: Index, meter: Meter, suggester: Suggester
) -> Iterator[Fault]:
    meter.charge(len(schema))
    for keyword, value in schema.items():
        at = pointer((*path, keyword))
        shape = _SHAPES.get(keyword)
        if shape is None:
            yield _refuse(keyword, at, suggester)
        elif not shape[0](value):
            yield Fault(at, CODE, f"`{keyword}` must be {shape[1]}, but is {kind_of(value)}.")
        elif isinstance(value, str):
            yield from _check_text(keyword, value, at, index, meter, suggester)
        elif keyword == "type" and isinstance(value, list):
            for number, name in enumerate(value):
                yield from _check_type(str(name), pointer((*path, keyword, number)), suggester)
        elif keyword == "patternProperties" and isinstance(value, dict):
            for pattern in value:
                yield from _check_pattern(pattern, pointer((*path, keyword, pattern)), meter)
    for step, member in members(schema):
        if not isinstance(member, dict | bool) and len(step) > 1:
            yield Fault(
                pointer(path + step), CODE, f"A schema must be an object, but is {kind_of(member)}."
            )


def _refuse(keyword: str, at: str, suggester: Suggester) -> Fault:
    if keyword in _LEADS_OUT:
        return Fault(
            at,
            "remote_ref",
            f"`{keyword}` is not accepted: references stay inside the document.",
            "Put shared schemas into `$defs`, and refer to them by `$ref: '#/$defs/…'`.",
        )
    if keyword in _NOT_ENFORCED:
        return Fault(at, CODE, f"`{keyword}` is not accepted, since it would not be enforced.")
    hint = suggester.did_you_mean(keyword, _SHAPES)
    return Fault(at, CODE, f"JSON Schema 2020-12 has no keyword `{keyword}`.", hint)


def _check_text(
    keyword: str, value: str, at: str, index: Index, meter: Meter, suggester: Suggester
) -> Iterator[Fault]:
    if keyword == "type":
        yield from _check_type(value, at, suggester)
    elif keyword == "pattern":
        yield from _check_pattern(value, at, meter)
    elif keyword == "format" and value not in FORMATS:
        known = ", ".join(sorted(FORMATS))
        yield Fault(at, CODE, f"The format {value!r} is not enforced.", f"Known are {known}.")
    elif keyword == "$schema" and value.rstrip("#") != DIALECT:
        yield Fault(at, CODE, "The schema must be JSON Schema 2020-12.", f"Use {DIALECT}.")
    elif keyword == "$ref" and not value.startswith("#"):
        yield Fault(
            at,
            "remote_ref",
            "The reference leads out of the document; nothing is fetched.",
            "Copy the schema into `$defs`, and refer to it by `$ref: '#/$defs/…'`.",
        )
    elif keyword == "$ref" and index.find(value) is None:
        yield Fault(
            at,
            CODE,
            f"There is no schema at {value!r}.",
            "References start at the schema: `#/$defs/name`.",
        )


def _check_type(name: str, at: str, suggester: Suggester) -> Iterator[Fault]:
    if name not in NOUNS:
        hint = suggester.did_you_mean(name, NOUNS) or f"Known are {', '.join(NOUNS)}."
        yield Fault(at, CODE, f"There is no type {name!r}.", hint)


def _check_pattern(pattern: str, at: str, meter: Meter) -> Iterator[Fault]:
    try:
        meter.compile(pattern)
    except PatternError as error:
        yield Fault(
            at,
            CODE,
            f"The pattern is not accepted: {error}.",
            "Patterns are RE2's, which run in linear time: no look-around, no backreferences.",
        )


def _find_loops(index: Index, base: Path) -> Iterator[Fault]:
    """Schemas that apply themselves to the same value again, without end."""
    import networkx as nx  # here, for a worker never gets here, and it takes 12 MB

    graph: nx.DiGraph[str] = nx.DiGraph()
    for place, schema in index.places.items():
        if isinstance(schema, bool):
            continue
        if isinstance(reference := schema.get("$ref"), str):
            graph.add_edge(place, index.find(reference) or "")
        for step, _ in members(schema):
            if step[0] in IN_PLACE:
                graph.add_edge(place, place + pointer(step))
    for component in nx.strongly_connected_components(graph):
        first = min(component)
        if len(component) > 1 or graph.has_edge(first, first):
            yield Fault(
                pointer(base) + first,
                CODE,
                "The schema refers to itself without going deeper into the value.",
                "Recurse through `properties` or `items`.",
            )


def _check_defaults(index: Index, base: Path, meter: Meter) -> Iterator[Fault]:
    checker = Checker(index, meter)
    for place, schema in index.places.items():
        if isinstance(schema, dict) and "default" in schema:
            filled = fill_defaults(schema, schema["default"], index, meter)
            at = (*base, *index.path(place), "default")
            for problem in checker.check(schema, filled, at):
                yield Fault(
                    pointer(problem.path), CODE, f"The default does not fit: {problem.message}"
                )
