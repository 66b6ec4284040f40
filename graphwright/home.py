"""Where the installation's own files are, and what a Dagster process needs to find its instance."""

import os
from pathlib import Path

from foundation.errors import GraphwrightError
from foundation.settings import Settings

_PACKAGE = Path(__file__).parent


class NotReadable(GraphwrightError):
    """The file that is to configure the Dagster instance cannot be read."""

    code = "dagster_yaml_unreadable"


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
        "GRAPHWRIGHT_OBJECT_STORE": settings.objects_url,
        "GRAPHWRIGHT_CODE_HOST": settings.code_host,
        "GRAPHWRIGHT_CODE_PORT": str(settings.code_port),
    }


def enter_dagster_home(settings: Settings) -> None:
    """Make ``<state>/dagster`` hold the installation's ``dagster.yaml``; point this process at it.

    Raises NotReadable.
    """
    make_private(settings.state)
    home = settings.state / "dagster"
    make_private(home)
    text = _dagster_yaml(settings)
    target = home / "dagster.yaml"
    if not target.exists() or target.read_bytes() != text:
        # Several processes may get here at once; each sees a whole file.
        fresh = home / f"dagster.yaml.{os.getpid()}"
        fresh.write_bytes(text)
        fresh.replace(target)
    os.environ.update(dagster_environment(settings))


def _dagster_yaml(settings: Settings) -> bytes:
    if not settings.dagster_yaml:
        return _required("dagster.yaml").read_bytes()
    try:
        return Path(settings.dagster_yaml).read_bytes()
    except OSError as error:
        raise NotReadable(
            f"{settings.dagster_yaml} cannot be read: {error.strerror}",
            hint="GRAPHWRIGHT_DAGSTER_YAML names it; without that Graphwright's own is used.",
        ) from error


def _required(name: str) -> Path:
    found = shipped(name)
    if found is None:
        raise FileNotFoundError(f"{name} is missing from this installation of Graphwright")
    return found
