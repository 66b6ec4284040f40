"""The fake API server for tests: a process of its own, and a kubeconfig that leads to it."""

import secrets
import subprocess
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from tests.kubernetes.security import ENFORCE

ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class FakeKubernetes:
    """A fake that answers at ``url``; whoever has ``kubeconfig`` may do all."""

    url: str
    token: str
    kubeconfig: Path
    limited: Path
    """The kubeconfig of one who may do only what the fake was told."""

    def namespace(self, name: str, *, restricted: bool = True) -> None:
        """Make a namespace, which enforces the Pod Security Standard ``restricted``."""
        labels = {ENFORCE: "restricted"} if restricted else {}
        self.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})

    def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create an object of any kind that the fake knows."""
        answer = httpx.post(
            self.url + path, json=body, headers=self._headers(), timeout=60, trust_env=False
        )
        assert answer.status_code == 201, answer.text
        return answer.json()

    def unknown(self) -> list[str]:
        """The requests that the fake did not know."""
        answer = httpx.get(f"{self.url}/fake/seen", timeout=60, trust_env=False)
        return answer.raise_for_status().json()["unknown"]

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def client_of(kubeconfig: Path) -> Any:
    """The official client, whose default configuration is left as it is. Seconds of import."""
    from kubernetes.config import (
        new_client_from_config,  # pyright: ignore[reportUnknownVariableType]
    )

    return new_client_from_config(str(kubeconfig))


@contextmanager
def fake_kubernetes(
    folder: Path,
    images: Sequence[str],
    *,
    executes: bool = True,
    rights: Iterable[tuple[str, str]] = (),
) -> Generator[FakeKubernetes]:
    """A fake on a free port of loopback until the block ends; what its containers run ends too.

    Args:
        folder: where its pods have their folders, and the kubeconfig is written.
        images: the names that can be pulled.
        executes: whether pods run, or stay pending for ever.
        rights: verbs and resources, as a Role names them, of the limited kubeconfig.
    """
    token, limited = secrets.token_hex(), secrets.token_hex()
    command = [sys.executable, "-m", "tests.kubernetes", str(folder / "pods"), token, limited]
    command += [*images, *(f"--right={verb}:{resource}" for verb, resource in rights)]
    if not executes:
        command.append("--no-execution")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, "the fake did not start"
        paths = folder / "kubeconfig", folder / "limited"
        for path, bearer in zip(paths, (token, limited), strict=True):
            path.write_text(yaml.safe_dump(kubeconfig_of(url, bearer)))
        try:
            yield FakeKubernetes(url, token, *paths)
        finally:
            process.terminate()


def kubeconfig_of(url: str, token: str) -> dict[str, Any]:
    """Leads to this URL, with this token."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": url}}],
        "users": [{"name": "fake", "user": {"token": token}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
    }
