"""The peers that can be asked for; a module of this package each, loaded when it is needed."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.engines.base import Engine
from bench.support.processes import Processes
from bench.support.services import Services

PYTHON_PEERS: Final = ("celery", "dbos", "dagster_plain", "prefect")
NODE_PEERS: Final = ("restate", "n8n")
PEERS: Final = (*PYTHON_PEERS, *NODE_PEERS)
FAST_PEERS: Final = ("celery", "dbos", "restate", "n8n")
"""Those that finish a small run in well under a second."""
PROGRAMS: Final = Path(__file__).parent / "programs"
"""What runs inside the peers' own environments, without any of our packages."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a peer is started with: its name, a folder of its own, the servers, the processes."""

    name: str
    folder: Path
    services: Services
    processes: Processes

    def database(self) -> str:
        """Make the peer's own database; its URL."""
        return self.services.database(self.database_name())

    def database_name(self, variant: str = "") -> str:
        """What the peer's database is called, or that of one variant of it."""
        return f"bench_{self.name}{variant and '_'}{variant}"


def start(name: str, setting: Setting) -> list[Engine]:
    """Install a peer where it is missing, and start it: usually one engine, or variants of it.

    Raises NotInstalled, and whatever else may go wrong.
    """
    module: Any = importlib.import_module(f"bench.engines.{name}")
    return module.start(setting)
