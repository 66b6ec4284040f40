"""What Dagster's code server loads: one repository, the workspace window."""

from typing import Any

from dagster import repository  # pyright: ignore[reportUnknownVariableType]

import node_types
from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.naming import REPOSITORY
from dynamic_jobs.window import WindowRepository
from foundation.database import connect
from foundation.settings import Limits, Settings
from graph_defs.catalogue import Catalogue


@repository(name=REPOSITORY)
def graphwright() -> Any:  # a RepositoryData, which the decorator takes but does not declare
    """Every graph that is in use, as a job."""
    settings = Settings()
    runtime = NodeRuntime(settings, Limits(), Catalogue.from_packages(node_types))
    return WindowRepository(
        lambda: connect(settings.database_url), Compiler(runtime), settings.window_size
    )
