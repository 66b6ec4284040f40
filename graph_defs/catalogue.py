"""The catalogue: every node type that this installation knows."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, Self

from node_types.base import NodeType

AnyNodeType = NodeType[Any, Any]

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")


class Catalogue(Mapping[str, AnyNodeType]):
    """Node types by name, in alphabetical order.

    Raises:
        ValueError: two node types share a name, or one's name is not dotted lower-case words.
    """

    def __init__(self, node_types: Iterable[AnyNodeType]) -> None:
        self._types: dict[str, AnyNodeType] = {}
        for node_type in sorted(node_types, key=lambda each: each.name):
            if not _NAME.fullmatch(node_type.name):
                raise ValueError(f"{node_type.name!r} is no name for a node type")
            if node_type.name in self._types:
                raise ValueError(f"two node types are named {node_type.name!r}")
            self._types[node_type.name] = node_type

    @classmethod
    def from_packages(cls, *packages: ModuleType) -> Self:
        """The node type of each module of the packages; subpackages hold helpers and are left out.

        Raises:
            ValueError: a module defines more than one node type.
        """
        found: list[AnyNodeType] = []
        for package in packages:
            for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
                if not info.ispkg:
                    found.extend(_node_types_in(importlib.import_module(info.name)))
        return cls(found)

    def versions(self) -> dict[str, int]:
        """Each node type's version by its name."""
        return {name: node_type.version for name, node_type in self._types.items()}

    def __getitem__(self, name: str) -> AnyNodeType:
        return self._types[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)


def _node_types_in(module: ModuleType) -> list[AnyNodeType]:
    # Those in node_types.base only say that there is a name.
    classes: list[type[AnyNodeType]] = [
        each
        for each in vars(module).values()
        if inspect.isclass(each) and each.__module__ == module.__name__ and "name" in vars(each)
        if issubclass(each, NodeType)
    ]
    if len(classes) > 1:
        raise ValueError(f"{module.__name__} defines more than one node type")
    return [each() for each in classes]
