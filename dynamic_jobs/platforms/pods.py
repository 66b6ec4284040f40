"""The pods of steps, as their API server knows them. No request to it lasts for ever."""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, Final

from dagster_k8s.client import PatchedApiClient
from dagster_k8s.pipes import PipesK8sClient
from kubernetes.client import ApiException, CoreV1Api
from kubernetes.client.exceptions import NotFoundException
from urllib3.exceptions import HTTPError

from dynamic_jobs.platforms.base import NODE, RUN
from dynamic_jobs.platforms.patience import Patience

_TIMEOUTS: Final = (5, 10)
"""Seconds to connect, and for an answer, unless a request has its own. One that only reads, or
deletes, is made up to four times."""
_CREATE_TIMEOUTS: Final = (5, 30)
"""Admission may take so long. It is asked once."""
_PASSING: Final = frozenset({0, 408, 429, 500, 502, 503, 504})


def connected(client: PipesK8sClient) -> Any:
    """The API of the cluster that Pipes' client would use. Raises ConfigException."""
    client._load_k8s_config()  # pyright: ignore[reportPrivateUsage]
    return bound(CoreV1Api(PatchedApiClient()))


def bound(api: Any) -> Any:
    """The same API, of which each request has a timeout: the client has none of its own."""
    rest = api.api_client.rest_client
    request: Callable[..., Any] = rest.request

    def bounded(*given: Any, _request_timeout: Any = None, **more: Any) -> Any:
        return request(*given, _request_timeout=_request_timeout or _TIMEOUTS, **more)

    rest.request = bounded
    return api


def passes(error: ApiException | HTTPError) -> bool:
    """Whether the API server may answer later."""
    told: Any = error
    return isinstance(error, HTTPError) or told.status in _PASSING


def read_pod(api: Any, namespace: str, name: str, patience: Patience) -> Any:
    """The pod, as soon as the API server answers. Raises ApiException and HTTPError."""
    while True:
        try:
            pod = api.read_namespaced_pod(name, namespace)
        except (ApiException, HTTPError) as error:
            if not passes(error):
                raise
            patience.away(error)
        else:
            patience.answered()
            return pod


def create_pod(api: Any, namespace: str, pod: Any) -> None:
    """Raises ApiException and HTTPError: then it may be there, or come to be, all the same."""
    api.create_namespaced_pod(namespace, pod, _request_timeout=_CREATE_TIMEOUTS)


def remove_all(api: Any, namespace: str, labels: Mapping[str, str]) -> None:
    """The pods that have all these labels. Raises ApiException and HTTPError."""
    selector = ",".join(f"{name}={value}" for name, value in labels.items())
    found = api.list_namespaced_pod(namespace, label_selector=selector).items
    remove(api, namespace, [pod.metadata.name for pod in found])


def remove(api: Any, namespace: str, names: Collection[str]) -> None:
    """Raises ApiException and HTTPError."""
    for name in names:
        with suppress(NotFoundException):  # somebody else has removed it
            api.delete_namespaced_pod(name, namespace)


class Pods:
    """Whatever steps have running in a namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def found(self) -> dict[str, str]:
        """Names, and the runs that they are of. Raises ApiException, HTTPError, ConfigException."""
        api = connected(PipesK8sClient())
        pods: list[Any] = api.list_namespaced_pod(
            self._namespace, label_selector=f"{RUN},{NODE}"
        ).items
        return {pod.metadata.name: pod.metadata.labels[RUN] for pod in pods}

    def remove(self, names: Collection[str], /) -> None:
        """Raises ApiException, HTTPError and ConfigException."""
        remove(connected(PipesK8sClient()), self._namespace, names)
