"""Pydantic's errors in our codes, pointers and words."""

from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from foundation.errors import Fault
from graph_defs.json_values import Json, Path, kind_of, pointer
from graph_defs.suggestions import Suggester

_NOUNS: Final[Mapping[str, str]] = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "an array",
    "tuple_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "none_required": "null",
}
_SIZES: Final = {"too_short": "least", "too_long": "most"}
_OWN: Final = frozenset({"bad_name", "reserved_name", "conflicting_fields"})
"""Types of errors that our own validators raise; they are codes already."""
_ABOUT_NAMES: Final = frozenset({"missing", "extra_forbidden"})
_RULES: Final = frozenset({"value_error", "assertion_error", "bad_value", "conflicting_fields"})
"""Errors about a whole value, which may be another one once its expressions are evaluated."""


def translate(
    error: ValidationError,
    model: type[BaseModel],
    value: Json,
    base: Path,
    suggester: Suggester,
    is_open: Callable[[Json], bool] | None = None,
) -> list[Fault]:
    """The faults that ``error`` found when ``value``, which is at ``base``, was read as ``model``.

    Codes: ``missing_field``, ``unknown_field``, ``wrong_type``, ``bad_name``, ``reserved_name``,
    ``conflicting_fields`` and, for any other rule, ``bad_value``. A value for which ``is_open``
    holds is one that is not known yet, so no fault about its type or its rules is given.
    """
    faults: list[Fault] = []
    types: dict[Path, list[str]] = {}
    for detail in error.errors(include_url=False):
        kind = detail["type"]
        path, at = _locate(detail["loc"], value, missing=kind == "missing")
        known = kind in _ABOUT_NAMES or not (isinstance(at, str) or kind in _RULES)
        if is_open and not known and is_open(at):
            continue
        if (noun := _NOUNS.get(kind)) is not None:
            types.setdefault(path, []).append(noun)  # one error for each member of a union
        else:
            faults.append(_fault(detail, model, path, base, suggester))
    for path, nouns in types.items():
        wanted = " or ".join(dict.fromkeys(nouns))
        found = kind_of(_at(value, path))
        faults.append(
            Fault(
                pointer(base + path),
                "wrong_type",
                f"The value must be {wanted}, but is {found}.",
                "Quote it, to make it a string."
                if wanted == "a string" and found not in {"an array", "an object", "null"}
                else "",
            )
        )
    return faults


def _fault(
    detail: ErrorDetails, model: type[BaseModel], path: Path, base: Path, suggester: Suggester
) -> Fault:
    kind, at = detail["type"], pointer(base + path)
    if kind.startswith("union_tag_"):
        return _tag_fault(kind, f"{at}/type", detail.get("ctx", {}))
    name = str(path[-1]) if path else ""
    context = detail.get("ctx", {})
    if kind == "missing":
        return Fault(at, "missing_field", f"The field `{name}` is missing.")
    if kind == "extra_forbidden":
        known = _fields_at(model, detail["loc"][:-1])
        hint = suggester.did_you_mean(name, known) or f"Known are {', '.join(sorted(known))}."
        return Fault(at, "unknown_field", f"There is no field `{name}` here.", hint)
    if kind in _OWN:
        return Fault(at, kind, detail["msg"], str(context.get("hint", "")))
    message = _reword(detail["msg"])
    if kind == "literal_error":
        message = f"The value must be {context.get('expected')}."
    elif kind in _SIZES:
        size = context.get("min_length", context.get("max_length"))
        message = f"The value must have at {_SIZES[kind]} {size} items."
    return Fault(at, "bad_value", message, str(context.get("hint", "")))


def _tag_fault(kind: str, at: str, context: Mapping[str, Any]) -> Fault:
    """The ``type`` by which the members of a union are told apart."""
    if kind == "union_tag_not_found":
        return Fault(at, "missing_field", "The field `type` is missing.")
    tags = str(context.get("expected_tags")).replace(", ", " or ")
    return Fault(at, "bad_value", f"The value must be {tags}.")


def _reword(message: str) -> str:
    for before, after in (
        ("Value error, ", ""),
        ("Assertion failed, ", ""),
        ("Input should", "The value should"),
        ("String should", "The value should"),
        ("Input ", "The value "),
    ):
        if message.startswith(before):
            message = after + message.removeprefix(before)
    return message if message.endswith(".") else f"{message}."


def _locate(location: tuple[int | str, ...], value: Json, *, missing: bool) -> tuple[Path, Json]:
    """The path that pydantic's ``loc`` stands for, and the value there.

    A ``loc`` also holds what is in no document: ``[key]`` for an error in a key, and the tag of the
    member of a union that was tried.
    """
    path: list[str | int] = []
    at = value
    for number, part in enumerate(location):
        if (isinstance(at, dict) and part in at) or (
            isinstance(at, list) and isinstance(part, int) and part < len(at)
        ):
            path.append(part)
            at = _at(at, (part,))
        elif missing and number == len(location) - 1:
            path.append(part)
    return tuple(path), at


def _at(value: Json, path: Path) -> Json:
    for part in path:
        if isinstance(value, dict):
            value = value[str(part)]
        elif isinstance(value, list):
            value = value[int(part)]
    return value


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> set[str]:
    """The names of the fields that may stand in the object at pydantic's ``loc``."""
    kinds: list[Any] = [model]
    for part in location:
        kinds = [inner for kind in kinds for inner in _inside(kind, part)] or kinds
    return {name for kind in kinds for name in _fields(kind)}


def _fields(kind: Any) -> Iterable[str]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [field.alias or name for name, field in kind.model_fields.items()]
    return ()


def _inside(kind: Any, part: str | int) -> list[Any]:
    """The types that a member of a type may have, unions taken apart."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        tag = kind.model_fields.get("type")
        if tag is not None and part in get_args(tag.annotation):
            return [kind]
        found = [f.annotation for n, f in kind.model_fields.items() if part in {f.alias, n}]
        return [each for annotation in found for each in _members(annotation)]
    arguments = get_args(kind)
    return _members(arguments[-1]) if arguments else []


def _members(kind: Any) -> list[Any]:
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in {Union, UnionType}:
        return [each for member in get_args(kind) for each in _members(member)]
    return [kind]
