"""The containers of runs and steps, as the Docker-compatible socket knows them."""

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast

import docker
from docker.errors import APIError, NotFound

from dynamic_jobs.platforms.base import RUN

LOG_FILES: Final = {"type": "json-file", "config": {"max-size": "16m", "max-file": "2"}}
"""What Docker keeps of a container's log, on the disk of its machine."""
ANSWER_SECONDS: Final = 15
"""For an answer of a daemon that is well."""
_CONFLICT: Final = 409


def remove_all(labels: Mapping[str, str]) -> None:
    """The containers that have all these labels. Raises DockerException and RequestException."""
    with _client() as client:
        remove(client, _labelled(client, [f"{name}={value}" for name, value in labels.items()]))


class Containers:
    """Whatever runs and their steps have at the socket."""

    def found(self) -> dict[str, str]:
        """Ids, and the runs that they are of. Raises DockerException and RequestException."""
        with _client() as client:
            found = _labelled(client, [RUN])
            return {container: labels[RUN] for container, labels in found.items()}

    def remove(self, names: Collection[str], /) -> None:
        """Raises DockerException and RequestException."""
        with _client() as client:
            remove(client, names)


@contextmanager
def _client() -> Generator[docker.DockerClient]:
    client = docker.from_env(timeout=ANSWER_SECONDS)
    try:
        yield client
    finally:
        client.close()


def _labelled(client: docker.DockerClient, labels: list[str]) -> Mapping[str, dict[str, str]]:
    """Ids and labels of the containers that have all these labels, whether they run or not."""
    api = cast("Any", client.api)
    found: list[dict[str, Any]] = api.containers(all=True, filters={"label": labels})
    return {each["Id"]: each["Labels"] for each in found}


def remove(client: docker.DockerClient, containers: Collection[str]) -> None:
    """Those that still run are killed. Raises APIError and RequestException."""
    api = cast("Any", client.api)
    for container in containers:
        try:
            api.remove_container(container, force=True, v=True)
        except NotFound:
            continue  # somebody else has removed it
        except APIError as error:
            if error.status_code != _CONFLICT:  # somebody else is removing it
                raise
