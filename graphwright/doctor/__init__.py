"""What is wrong with an installation, and how to mend it. It changes nothing that others see."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from foundation.errors import GraphwrightError
from foundation.settings import Settings
from graphwright.doctor import backends, folder, processes
from graphwright.doctor.finding import Finding, wrong

__all__ = ["Finding", "examine"]

_CHECKS: Final[Mapping[str, Callable[[Settings], Iterator[Finding]]]] = {
    "environment": folder.environment,
    "state folder": folder.state_folder,
    "signing key": folder.signing_key,
    "ports": folder.ports,
    "database": backends.database,
    "redis": backends.redis,
    "master key": backends.master_key,
    "object store": backends.object_store,
    "api": processes.api,
    "hooks": processes.hooks,
    "workers": processes.workers,
    "dispatcher": processes.dispatcher,
    "dagster": processes.dagster,
}


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, good ones too, as each is made. What fails unforeseen is a finding as well."""
    for name, check in _CHECKS.items():
        try:
            yield from check(settings)
        except GraphwrightError as error:
            yield wrong(name, error.message, error.hint)
        except Exception as error:
            yield wrong(name, f"could not be checked: {type(error).__name__}: {error}")
