"""What the fake API server holds: objects by kind, namespace and name."""

import copy
import secrets
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

Object: TypeAlias = dict[str, Any]


class Rejected(Exception):
    """A request that is answered by a ``Status`` of failure."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


def invalid(kind: str, name: str, problems: list[str]) -> Rejected:
    """The answer to a manifest that breaks rules."""
    return Rejected(422, "Invalid", f'{kind} "{name}" is invalid: {"; ".join(problems)}')


def now() -> str:
    """The time as objects have it: seconds, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def name_of(held: Object) -> str:
    return held["metadata"]["name"]


@dataclass
class Store:
    """Objects as the API shows them. ``changed`` is called with each that was written."""

    changed: Callable[[Object], None] = lambda _held: None
    _held: dict[tuple[str, str, str], Object] = field(
        default_factory=dict[tuple[str, str, str], Object]
    )
    _version: int = 0

    def create(self, namespace: str, body: Object) -> Object:
        """Hold a new object. 409 if there is one of its name, 404 if there is no such namespace."""
        kind, metadata = body["kind"], body["metadata"]
        if namespace and ("Namespace", "", namespace) not in self._held:
            raise Rejected(404, "NotFound", f'namespaces "{namespace}" not found')
        if metadata.get("namespace", namespace) != namespace:
            raise Rejected(400, "BadRequest", "the namespace of the object is not the request's")
        if "name" not in metadata:
            metadata["name"] = metadata["generateName"] + secrets.token_hex(3)[:5]
        key = (kind, namespace, metadata["name"])
        if key in self._held:
            message = f'{_plural(kind)} "{metadata["name"]}" already exists'
            raise Rejected(409, "AlreadyExists", message)
        if namespace:
            metadata["namespace"] = namespace
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
        self._held[key] = body
        self.write(body)
        return body

    def write(self, held: Object) -> None:
        """An object was changed in place."""
        self._version += 1
        held["metadata"]["resourceVersion"] = str(self._version)
        self.changed(held)

    def read(self, kind: str, namespace: str, name: str) -> Object:
        """The object itself. 404 if there is none."""
        try:
            return self._held[kind, namespace, name]
        except KeyError:
            raise Rejected(404, "NotFound", f'{_plural(kind)} "{name}" not found') from None

    def find(self, kind: str, namespace: str, name: str) -> Object | None:
        return self._held.get((kind, namespace, name))

    def remove(self, held: Object) -> None:
        """Forget an object, if it is still held."""
        metadata = held["metadata"]
        self._held.pop((held["kind"], metadata.get("namespace", ""), metadata["name"]), None)

    def all(self, kind: str, namespace: str) -> list[Object]:
        """The objects of a namespace, oldest first."""
        return [
            held
            for (its_kind, its_namespace, _), held in self._held.items()
            if its_kind == kind and its_namespace == namespace
        ]

    def listed(self, kind: str, namespace: str, labels: str, fields: str) -> Object:
        """A list as the API answers it. 400 for a selector that the fake does not know."""
        wanted = [*_labels(labels), *_fields(fields)]
        items = [held for held in self.all(kind, namespace) if all(test(held) for test in wanted)]
        version = "batch/v1" if kind == "Job" else "v1"
        return {
            "apiVersion": version,
            "kind": f"{kind}List",
            "metadata": {"resourceVersion": str(self._version)},
            "items": copy.deepcopy(items),
        }


def _plural(kind: str) -> str:
    return f"{kind.lower()}s" + (".batch" if kind == "Job" else "")


def _labels(selector: str) -> Iterator[Callable[[Object], bool]]:
    for term in filter(None, selector.split(",")):
        key, equals, value = term.replace("==", "=").partition("=")
        if "!" in term or "(" in term or " " in term:
            raise Rejected(400, "BadRequest", f"the fake does not know the label selector {term}")

        def test(held: Object, key: str = key, equals: str = equals, value: str = value) -> bool:
            labels = held["metadata"].get("labels", {})
            return labels.get(key) == value if equals else key in labels

        yield test


def _fields(selector: str) -> Iterator[Callable[[Object], bool]]:
    for term in filter(None, selector.split(",")):
        path, _, value = term.replace("==", "=").partition("=")
        if path not in ("metadata.name", "involvedObject.name", "involvedObject.uid"):
            raise Rejected(400, "BadRequest", f"the fake does not know the field selector {term}")
        outer, inner = path.split(".")

        def test(held: Object, outer: str = outer, inner: str = inner, value: str = value) -> bool:
            return held.get(outer, {}).get(inner) == value

        yield test
