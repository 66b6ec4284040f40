"""Has the database the schema of this release: our migrations, and those of its Dagster?

Who asks may have no Dagster loaded, which takes seconds. So the scripts by which Dagster migrates
its tables (with Alembic, one revision after the other) are read as text; the contract is
tests/foundation/test_schema.py.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final, LiteralString

import psycopg

from foundation.database import AsyncConnection, Connection, migration_names

OURS: Final[LiteralString] = "SELECT name FROM graphwright.migrations"
DAGSTERS: Final[LiteralString] = "SELECT version_num AS name FROM public.alembic_version"

_SCRIPTS: Final = Path("_core", "storage", "alembic", "versions")
_REVISION: Final = re.compile(r'^revision = "(\w+)"', re.MULTILINE)
_FORMER: Final = re.compile(r'^down_revision = "(\w+)"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class DagsterSchema:
    """What the installed Dagster's tables should be at, and where they may come from."""

    head: str
    older: frozenset[str]

    def is_later(self, revision: str | None) -> bool:
        """Whether tables at ``revision`` are of a Dagster that came after the installed one."""
        return revision is not None and revision != self.head and revision not in self.older


@dataclass(frozen=True, slots=True)
class Applied:
    """What a database has."""

    ours: frozenset[str]
    dagsters: str | None
    """The revision of Dagster's tables; None where there are none."""

    @classmethod
    def of(cls, connection: Connection) -> "Applied":
        """Asks a connection in autocommit mode."""

        def names(statement: LiteralString) -> list[str]:
            try:
                return [row["name"] for row in connection.execute(statement)]
            except psycopg.errors.UndefinedTable:
                return []

        return cls(frozenset(names(OURS)), next(iter(names(DAGSTERS)), None))

    @classmethod
    async def read(cls, connection: AsyncConnection) -> "Applied":
        """:meth:`of` for the event loop."""

        async def names(statement: LiteralString) -> list[str]:
            try:
                return [row["name"] async for row in await connection.execute(statement)]
            except psycopg.errors.UndefinedTable:
                return []

        return cls(frozenset(await names(OURS)), next(iter(await names(DAGSTERS)), None))

    @property
    def lacks(self) -> str | None:
        """What this release needs and the database has not; a later release's lacks nothing."""
        if missing := sorted(set(migration_names()) - self.ours):
            return f"the migrations {', '.join(missing)}"
        if self.dagsters is None:
            return "Dagster's tables"
        if self.dagsters in dagster_schema().older:
            return f"Dagster's migrations from {self.dagsters} to {dagster_schema().head}"
        return None

    @property
    def later(self) -> str | None:
        """What the database has of a later release; None where it has nothing."""
        names = sorted(self.ours - set(migration_names()))
        if dagster_schema().is_later(self.dagsters):
            names.append(f"Dagster's {self.dagsters}")
        return ", ".join(names) or None


@cache
def dagster_schema() -> DagsterSchema:
    """What the installed Dagster's migrations lead to. Reads some ninety files, once."""
    package = find_spec("dagster")
    assert package is not None
    assert package.origin is not None
    texts = [
        path.read_text("utf-8") for path in (Path(package.origin).parent / _SCRIPTS).glob("*.py")
    ]
    former = {each for text in texts for each in _FORMER.findall(text)}
    (head,) = {each for text in texts for each in _REVISION.findall(text)} - former
    return DagsterSchema(head, frozenset(former))
