"""What the installed Dagster's migrations are, as Alembic reads them."""

from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.storage.sql import ALEMBIC_SCRIPTS_LOCATION

from foundation.database import migration_names
from foundation.schema import Applied, dagster_schema

OURS = frozenset(migration_names())


def test_dagsters_migrations_are_read_as_alembic_reads_them() -> None:
    config = Config()
    config.set_main_option("script_location", ALEMBIC_SCRIPTS_LOCATION)
    scripts = ScriptDirectory.from_config(config)
    found = dagster_schema()
    assert scripts.get_heads() == [found.head]
    assert {each.revision for each in scripts.walk_revisions()} == {found.head, *found.older}


def test_what_a_database_lacks() -> None:
    known = dagster_schema()
    older = next(iter(known.older))
    assert Applied(OURS, known.head).lacks is None
    assert Applied(OURS | {"9999_later.sql"}, "later").lacks is None
    assert Applied(OURS - {"0001_initial.sql"}, known.head).lacks == (
        "the migrations 0001_initial.sql"
    )
    assert Applied(OURS, None).lacks == "Dagster's tables"
    assert older in (Applied(OURS, older).lacks or "")


def test_what_is_of_a_later_release() -> None:
    known = dagster_schema()
    assert Applied(OURS, known.head).later is None
    assert Applied(OURS, None).later is None
    assert Applied(OURS, next(iter(known.older))).later is None
    assert Applied(OURS | {"9999_later.sql"}, "abc").later == "9999_later.sql, Dagster's abc"
