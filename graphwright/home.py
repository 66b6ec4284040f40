"""Where the installation's own files are, and what a Dagster process needs to find its instance."""

import os
from pathlib import Path

from foundation.settings import Settings

_PACKAGE = Path(__file__).parent


def shipped(name: str) -> Path | None:
    """A file or folder of the project's root: in the package if installed, else in the checkout."""
    for folder in (_PACKAGE, _PACKAGE.parent):
        if (folder / name).exists():
            return folder / name
    return None


def workspace_file() -> Path:
    """The ``workspace.yaml`` that Dagster's webserver and daemon read."""
    return _required("workspace.yaml")


def make_private(folder: Path) -> None:
    """Make a folder that only its owner may read; one that exists keeps its permissions."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def dagster_environment(settings: Settings) -> dict[str, str]:
    """The variables that ``dagster.yaml`` and ``workspace.yaml`` name, and DAGSTER_HOME."""
    return {
        "DAGSTER_HOME": str(settings.state / "dagster"),
        "GRAPHWRIGHT_STATE": str(settings.state),
        "GRAPHWRIGHT_DATABASE_URL": settings.database_url,
        "GRAPHWRIGHT_REDIS_URL": settings.redis_url,
        "GRAPHWRIGHT_CODE_PORT": str(settings.code_port),
    }


def enter_dagster_home(settings: Settings) -> None:
    """Make ``<state>/dagster`` hold the project's ``dagster.yaml`` and point this process at it."""
    make_private(settings.state)
    home = settings.state / "dagster"
    make_private(home)
    text = _required("dagster.yaml").read_bytes()
    target = home / "dagster.yaml"
    if not target.exists() or target.read_bytes() != text:
        # Several processes may get here at once; each sees a whole file.
        fresh = home / f"dagster.yaml.{os.getpid()}"
        fresh.write_bytes(text)
        fresh.replace(target)
    os.environ.update(dagster_environment(settings))


def create_dagster_tables() -> None:
    """Create Dagster's tables where they are missing; call ``enter_dagster_home`` first."""
    from dagster import DagsterInstance

    with DagsterInstance.get() as instance:
        instance.get_runs_count()
        instance.event_log_storage.get_maximum_record_id()
        instance.all_instigator_state()


def _required(name: str) -> Path:
    found = shipped(name)
    if found is None:
        raise FileNotFoundError(f"{name} is missing from this installation of Graphwright")
    return found
