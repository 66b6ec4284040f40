"""An API and a worker, both in this process, whose isolated runs go to the cluster."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, LiteralString

import httpx
import yaml

from foundation.database import connect
from foundation.ids import TenantId
from foundation.settings import Limits, Settings
from foundation.tenant_pool import TenantPool
from graph_defs.placement_policy import KubernetesPolicy, PlacementPolicy
from graph_defs.store import GraphStore
from graph_defs.tenants import change_policy
from live_api.identity import SCOPES, issue_token, signing_key
from tests.cluster.clusters import SECRET, Cluster
from tests.cluster.gates import Gates
from tests.dynamic_jobs.conftest import graph, opened
from tests.live_api.conftest import serving

TENANT: Final = TenantId("acme")
NOWHERE: Final = {"graphwright.dev/pool": "nowhere"}
"""Labels that no node has."""
POLICY: Final = PlacementPolicy(
    max_cpu="2",
    max_memory="2Gi",
    kubernetes=KubernetesPolicy(
        namespace=None,
        node_selector={name: [value] for name, value in NOWHERE.items()},
        tolerations=["dedicated"],
        labels={"team": "data", "graphwright.dev/tenant": "somebody"},
    ),
)

# Dagster's event log, which the UI shows.
SAID: Final[LiteralString] = """
SELECT event::jsonb ->> 'user_message' AS said FROM event_logs WHERE run_id = %s ORDER BY id
"""


@dataclass(frozen=True)
class Stack:
    """What the tests ask."""

    http: httpx.Client
    cluster: Cluster
    gates: Gates
    settings: Settings

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return self.http.post(f"/api/v1{path}", json=body)

    def start(self, name: str, nodes: dict[str, Any], **more: Any) -> str:
        """Publish a graph of runs in pods by REST, and start one; the run's id."""
        document = graph(nodes, name=name, isolation="kubernetes", **more)
        published = self.post("/graphs", document)
        assert published.status_code == 201, published.text
        started = self.post(f"/graphs/{name}/runs", {})
        assert started.status_code == 202, started.text
        return started.json()["run_id"]

    def gated(self, name: str) -> dict[str, Any]:
        """Nodes: an effect, one that waits at the gate of this name, and one more."""
        return {
            "first": self.gates.node(f"/first-{name}"),
            "held": self.gates.node(f"/gate-{name}", "first"),
            "last": {"type": "data.transform", "needs": ["held"], "with": {"value": 1}},
        }

    def run(self, run_id: str) -> dict[str, Any]:
        return self.http.get(f"/api/v1/runs/{run_id}").raise_for_status().json()

    def ended(self, run_id: str) -> dict[str, Any]:
        """The run, once it has ended."""

        def look() -> Any:
            found = self.run(run_id)
            return found if found["status"] in ("succeeded", "failed", "cancelled") else None

        return self.until(look, f"the end of {run_id}")

    def said(self, run_id: str) -> str:
        """All that the run's event log says."""
        with connect(self.settings.database_url) as connection:
            return "\n".join(
                row["said"] or "" for row in connection.execute(SAID, (run_id,)).fetchall()
            )

    def until(self, look: Callable[[], Any], what: str, seconds: float = 90) -> Any:
        """What it sees, as soon as it sees something."""
        deadline = time.monotonic() + seconds
        while not (seen := look()):
            assert time.monotonic() < deadline, f"no {what}; pods wrote:\n{self.cluster.logs()}"
            time.sleep(0.1)  # of what a cluster does nobody is told
        return seen


@contextmanager
def stack(cluster: Cluster, gates: Gates, settings: Settings, folder: Path) -> Generator[Stack]:
    """Run it until the block ends. ``settings`` name the database and the Redis."""
    path = folder / "dagster.yaml"
    path.write_text(dagster_yaml(cluster))
    cluster.give(
        {
            "GRAPHWRIGHT_DATABASE_URL": settings.database_url,
            "GRAPHWRIGHT_REDIS_URL": settings.redis_url,
            "GRAPHWRIGHT_HTTP_PRIVATE": "true",
            "GRAPHWRIGHT_LEASE_SECONDS": str(settings.lease_seconds),
        }
    )
    settings = settings.model_copy(update={"dagster_yaml": str(path)})
    limits = Limits()
    with opened(settings, limits) as bench, bench.worker(), serving(settings, limits) as url:
        bench.with_pool(lambda pool: GraphStore(TenantPool(pool)).ensure_tenant(TENANT))
        allowed = {"isolations": ("warm", "kubernetes"), "placement": POLICY}
        change_policy(bench.connection, TENANT, allowed)
        token = issue_token(signing_key(settings.state), TENANT, "ann", SCOPES, 3_600)
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as http:
            yield Stack(http, cluster, gates, settings)


def dagster_yaml(cluster: Cluster) -> str:
    """The project's, but for the launcher's configuration."""
    text = (Path(__file__).parents[2] / "dagster.yaml").read_text("utf-8")
    found = yaml.safe_load(text)
    found["run_launcher"]["config"] = {
        "kubernetes": {
            "load_incluster_config": False,
            "kubeconfig_file": str(cluster.kubeconfig),
            "job_namespace": cluster.namespace,
            "job_image": cluster.image,
            "service_account_name": "default",
            "instance_config_map": "none",  # ours is in the image
            "dagster_home": "/var/lib/graphwright/dagster",
            "env_secrets": [SECRET],
            "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
        }
    }
    return yaml.safe_dump(found)
