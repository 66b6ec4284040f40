"""What is asked of an API server that does not answer, or answers with an error."""

import json
import socket
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from dagster_k8s import K8sRunLauncher

from dynamic_jobs.launcher import GraphwrightRunLauncher
from dynamic_jobs.placing import kubernetes
from dynamic_jobs.placing.base import Placed, PlacementFailed
from dynamic_jobs.placing.kubernetes import KubernetesPlatform
from dynamic_jobs.workers.instance import open_instance
from foundation.ids import RunId
from foundation.settings import Limits, Settings
from tests.dynamic_jobs.conftest import opened
from tests.kubernetes.placing import dagster_yaml
from tests.kubernetes.server import kubeconfig_of
from tests.kubernetes.test_fake import IMAGE


@pytest.mark.parametrize("ask", ["health", "remove"])
def test_an_api_server_that_does_not_answer_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    monkeypatch.setattr(kubernetes, "_ANSWER_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        path = tmp_path / "kubeconfig"
        url = "http://{}:{}".format(*silent.getsockname())
        path.write_text(yaml.safe_dump(kubeconfig_of(url, "token")))
        launcher = K8sRunLauncher(
            service_account_name="default",
            instance_config_map="none",
            dagster_home="/var/lib/graphwright/dagster",
            job_image=IMAGE,
            load_incluster_config=False,
            kubeconfig_file=str(path),
        )
        platform = KubernetesPlatform(launcher)
        with pytest.raises(PlacementFailed, match="cannot be reached") as raised:
            getattr(platform, ask)(Placed(RunId("a"), 1, "runs"))
    assert raised.value.passing


@pytest.mark.parametrize(
    ("code", "says", "passing"),
    [
        (None, "cannot be reached", True),
        (500, "etcd is away", True),
        (429, "too many requests", True),
        (403, "exceeded quota: pods=10", True),
        (403, "User cannot list pods", False),
        (404, "no such thing", False),
    ],
)
def test_what_passes_is_asked_again_later(
    tmp_path: Path, limits: Limits, settings: Settings, code: int | None, says: str, passing: bool
) -> None:
    path = tmp_path / "dagster.yaml"
    with answering(code, says) as url:
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(kubeconfig_of(url, "token")))
        path.write_text(dagster_yaml(kubeconfig, "runs"))
        with (
            opened(settings.model_copy(update={"dagster_yaml": str(path)}), limits) as bench,
            open_instance(settings.state / "dagster", bench.runtime) as instance,
        ):
            launcher = instance.run_launcher
            assert isinstance(launcher, GraphwrightRunLauncher)
            platform = launcher.platform("kubernetes")
            with pytest.raises(PlacementFailed, match=says) as raised:
                platform.health(Placed(RunId("a"), 1, "runs"))
    assert raised.value.passing is passing


@contextmanager
def answering(code: int | None, message: str) -> Generator[str]:
    """The URL of an API server that answers all requests so; None: that is not there."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"kind": "Status", "message": message}).encode()
            self.send_response(code or 0)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        if code is None:
            server.shutdown()
            server.server_close()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
