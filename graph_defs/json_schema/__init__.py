"""JSON Schema 2020-12 for params: what a schema may say, whether a value fits, its defaults.

Why not the jsonschema package: it matches patterns with ``re`` (whose time explodes), puts whole
values into messages, has no bound on its work, and resolves what we must refuse. The official test
suite runs against this package, and so does a comparison with jsonschema on random schemas.
"""

from graph_defs.json_schema.checking import Checker, Problem
from graph_defs.json_schema.defaults import fill_defaults
from graph_defs.json_schema.dialect import check_schema
from graph_defs.json_schema.index import Index
from graph_defs.json_schema.work import MAX_WORK, Meter, TooMuchWorkError

__all__ = [
    "MAX_WORK",
    "Checker",
    "Index",
    "Meter",
    "Problem",
    "TooMuchWorkError",
    "check_schema",
    "fill_defaults",
]
