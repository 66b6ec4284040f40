"""Whether a value fits a schema (JSON Schema 2020-12, core and validation), in bounded work."""

from dataclasses import dataclass, field

from graph_defs.json_schema import scalars
from graph_defs.json_schema.index import Index, Schema
from graph_defs.json_schema.work import Meter
from graph_defs.json_values import Json, JsonObject, Path


@dataclass(frozen=True, slots=True)
class Problem:
    """One way in which a value does not fit."""

    path: Path
    keyword: str
    message: str


@dataclass(slots=True)
class _Seen:
    """Which members of a value were looked at: the annotations that ``unevaluated*`` read."""

    names: set[str] = field(default_factory=set[str])
    indexes: set[int] = field(default_factory=set[int])

    def add(self, other: "_Seen") -> None:
        self.names |= other.names
        self.indexes |= other.indexes


class Checker:
    """Checks values against the subschemas of one schema, which has passed ``check_schema``."""

    def __init__(self, index: Index, meter: Meter) -> None:
        self._index = index
        self._meter = meter

    def check(self, schema: Schema, value: Json, path: Path = ()) -> list[Problem]:
        """Every way in which ``value``, which is at ``path``, does not fit.

        Raises:
            TooMuchWorkError: the meter ran out.
            RecursionError: references lead too deep.
        """
        problems: list[Problem] = []
        self._apply(schema, value, path, problems)
        return problems

    def _apply(self, schema: Schema, value: Json, path: Path, problems: list[Problem]) -> _Seen:
        self._meter.charge(1)
        seen = _Seen()
        if schema is True:
            return seen
        if schema is False:
            problems.append(Problem(path, "false", "No value is allowed here."))
            return seen
        self._meter.charge(len(schema))
        problems.extend(
            Problem(
                path if found.member is None else (*path, found.member),
                found.keyword,
                found.message,
            )
            for found in scalars.check(schema, value, self._meter)
        )
        self._apply_in_place(schema, value, path, problems, seen)
        if isinstance(value, dict):
            self._apply_to_object(schema, value, path, problems, seen)
        elif isinstance(value, list):
            self._apply_to_array(schema, value, path, problems, seen)
        return seen

    def _try(self, schema: Schema, value: Json, path: Path) -> _Seen | None:
        """What was seen where the value fits, else None."""
        problems: list[Problem] = []
        seen = self._apply(schema, value, path, problems)
        return None if problems else seen

    def _apply_in_place(
        self, schema: JsonObject, value: Json, path: Path, problems: list[Problem], seen: _Seen
    ) -> None:
        if isinstance(reference := schema.get("$ref"), str):
            seen.add(self._apply(self._index.resolve(reference), value, path, problems))
        for branch in _schemas(schema.get("allOf")):
            seen.add(self._apply(branch, value, path, problems))
        self._apply_branches(schema, value, path, problems, seen)
        if (unwanted := _schema(schema.get("not"))) is not None and (
            self._try(unwanted, value, path) is not None
        ):
            problems.append(Problem(path, "not", "The value has a form that it must not have."))
        if (condition := _schema(schema.get("if"))) is not None:
            fit = self._try(condition, value, path)
            if fit is not None:
                seen.add(fit)
            consequence = _schema(schema.get("else" if fit is None else "then"))
            if consequence is not None:
                seen.add(self._apply(consequence, value, path, problems))
        if isinstance(value, dict):
            for name, dependent in _named(schema.get("dependentSchemas")).items():
                if name in value:
                    seen.add(self._apply(dependent, value, path, problems))

    def _apply_branches(
        self, schema: JsonObject, value: Json, path: Path, problems: list[Problem], seen: _Seen
    ) -> None:
        for keyword in ("anyOf", "oneOf"):
            if branches := _schemas(schema.get(keyword)):
                fits = [f for b in branches if (f := self._try(b, value, path)) is not None]
                for fit in fits:
                    seen.add(fit)
                if not fits:
                    message = f"The value fits none of the {len(branches)} forms that it may have."
                    problems.append(Problem(path, keyword, message))
                elif keyword == "oneOf" and len(fits) > 1:
                    message = f"The value fits {len(fits)} forms, and must fit exactly one."
                    problems.append(Problem(path, keyword, message))

    def _apply_to_object(
        self,
        schema: JsonObject,
        value: JsonObject,
        path: Path,
        problems: list[Problem],
        seen: _Seen,
    ) -> None:
        properties = _named(schema.get("properties"))
        patterns = _named(schema.get("patternProperties"))
        additional = _schema(schema.get("additionalProperties"))
        names = _schema(schema.get("propertyNames"))
        self._meter.charge(len(value))
        for name, member in value.items():
            at = (*path, name)
            if names is not None:
                self._apply(names, name, at, problems)
            found = [properties[name]] if name in properties else []
            found += [each for p, each in patterns.items() if self._meter.matches(p, name)]
            if not found and additional is not None:
                found = [additional]
            for each in found:
                self._apply_to_member(each, member, at, problems)
                seen.names.add(name)
        rest = _schema(schema.get("unevaluatedProperties"))
        if rest is not None:
            for name in value.keys() - seen.names:
                self._apply_to_member(rest, value[name], (*path, name), problems)
                seen.names.add(name)

    def _apply_to_member(
        self, schema: Schema, value: Json, path: Path, problems: list[Problem]
    ) -> None:
        if schema is False:
            problems.append(
                Problem(path, "additionalProperties", f"There is no field `{path[-1]}`.")
            )
        else:
            self._apply(schema, value, path, problems)

    def _apply_to_array(
        self,
        schema: JsonObject,
        value: list[Json],
        path: Path,
        problems: list[Problem],
        seen: _Seen,
    ) -> None:
        prefix = _schemas(schema.get("prefixItems"))
        rest = _schema(schema.get("items"))
        self._meter.charge(len(value))
        for index, item in enumerate(value):
            each = prefix[index] if index < len(prefix) else rest
            if each is not None:
                self._apply(each, item, (*path, index), problems)
                seen.indexes.add(index)
        if (wanted := _schema(schema.get("contains"))) is not None:
            found = {
                index
                for index, item in enumerate(value)
                if self._try(wanted, item, (*path, index)) is not None
            }
            seen.indexes |= found
            problems.extend(
                Problem(path, broken.keyword, broken.message)
                for broken in scalars.check_contains(schema, len(found))
            )
        unevaluated = _schema(schema.get("unevaluatedItems"))
        if unevaluated is not None:
            for index, item in enumerate(value):
                if index not in seen.indexes:
                    self._apply(unevaluated, item, (*path, index), problems)
                    seen.indexes.add(index)


def _schema(value: Json) -> Schema | None:
    return value if isinstance(value, dict | bool) else None


def _schemas(value: Json) -> list[Schema]:
    if not isinstance(value, list):
        return []
    return [item for item in value if isinstance(item, dict | bool)]


def _named(value: Json) -> dict[str, Schema]:
    if not isinstance(value, dict):
        return {}
    return {name: item for name, item in value.items() if isinstance(item, dict | bool)}
