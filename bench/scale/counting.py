"""What PostgreSQL counts: bytes of tables, log, whole pages in it, commits."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final, LiteralString

import psutil

from bench.scale.costs import Sizes
from foundation.database import Connection

# Of a partitioned table, its partitions; TOAST counts as rows.
SIZES: Final[LiteralString] = """
SELECT p.relnamespace::regnamespace || '.' || p.relname AS name,
    sum(pg_table_size(part))::bigint AS rows, sum(pg_indexes_size(part))::bigint AS indexes
FROM pg_class p, LATERAL (
    SELECT relid AS part FROM pg_partition_tree(p.oid) WHERE isleaf
    UNION SELECT p.oid
) parts
WHERE p.relkind IN ('r', 'p') AND NOT p.relispartition
    AND p.relnamespace IN ('public'::regnamespace, 'graphwright'::regnamespace)
GROUP BY 1
"""
# Of each partition's pages, the first and the root hold no entries of the table.
LEAVES: Final[LiteralString] = """
SELECT sum(greatest(pg_relation_size(relid) / current_setting('block_size')::integer - 2, 1))::float
    AS pages
FROM (
    SELECT relid FROM pg_partition_tree(%(index)s::regclass) WHERE isleaf
    UNION SELECT oid FROM pg_class WHERE oid = %(index)s::regclass AND relkind = 'i'
) parts
"""
WRITTEN: Final[LiteralString] = "SELECT pg_current_wal_insert_lsn()::text AS written"
DISTANCE: Final[LiteralString] = "SELECT pg_wal_lsn_diff(%(end)s, %(begin)s)::float AS bytes"
FOLDER: Final[LiteralString] = """
SELECT current_setting('data_directory') || '/pg_wal' AS folder, pg_backend_pid() AS pid
"""
COMMITS: Final[LiteralString] = """
SELECT xact_commit AS commits FROM pg_stat_database WHERE datname = current_database()
"""
_TOTAL: Final = re.compile(r"Total +\d+ +\d+ \[.*\] +(\d+) \[.*\] +\d+ \[.*\]")
"""The last line of its statistics; the number is the bytes of whole pages."""

SETTLE: Final[tuple[LiteralString, ...]] = ("VACUUM ANALYZE", "CHECKPOINT")


def settle(database: Connection) -> None:
    for statement in SETTLE:
        database.execute(statement)


@dataclass(frozen=True, slots=True)
class Log:
    """A part of the write-ahead log."""

    bytes: float = 0.0
    pages: float = 0.0
    """Whole ones in it, as full_page_writes asks for after a checkpoint."""
    page_bytes: float = 0.0
    """Of all these together: free space within a page is left out."""

    def __add__(self, other: "Log") -> "Log":
        return Log(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))


def written(database: Connection) -> str:
    """Up to where there is log."""
    return _told(database, WRITTEN)["written"]


def distance(database: Connection, begin: str) -> float:
    """Bytes of log since then."""
    return _told(database, DISTANCE, begin=begin, end=written(database))["bytes"]


def log_since(database: Connection, begin: str) -> Log:
    """The log since then, between the same two checkpoints. Statistics come seconds late; the log
    itself is read."""
    end = written(database)
    database.execute("SELECT pg_switch_wal()")  # what is read has to be out of the buffers
    server = _told(database, FOLDER)
    program = Path(psutil.Process(server["pid"]).exe()).with_name("pg_waldump")
    command = (str(program), "--path", server["folder"], "--start", begin, "--end", end)
    pages = _output(*command, "--fullpage").count(" FPW")
    sizes = _output(*command, "--stats").splitlines()[-1]
    found = _TOTAL.fullmatch(sizes)
    if found is None:
        raise RuntimeError(f"pg_waldump has another form: {sizes}")
    return Log(_told(database, DISTANCE, begin=begin, end=end)["bytes"], pages, float(found[1]))


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def commits(database: Connection) -> float:
    """So far, of this database; those of the last seconds may be missing."""
    return _told(database, COMMITS)["commits"]


def leaves(database: Connection, index: str) -> float:
    """Pages of an index that hold entries."""
    return _told(database, LEAVES, index=index)["pages"]


def sizes(database: Connection) -> dict[str, tuple[int, int]]:
    """Bytes of rows and of indexes, by table."""
    rows = database.execute(SIZES).fetchall()
    return {row["name"]: (row["rows"], row["indexes"]) for row in rows}


def grown(
    before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]], count: int
) -> dict[str, Sizes]:
    """Bytes for one of ``count``, of the tables that grew by at least a byte for each."""
    found: dict[str, Sizes] = {}
    for name, (rows, indexes) in sorted(after.items()):
        had = before.get(name, (0, 0))
        added = Sizes(
            rows=round((rows - had[0]) / count, 1), indexes=round((indexes - had[1]) / count, 1)
        )
        if added.all >= 1:
            found[name] = added
    return found


def _told(database: Connection, statement: LiteralString, **values: object) -> dict[str, Any]:
    row = database.execute(statement, values).fetchone()
    assert row is not None
    return row
