"""How many runs a second one worker process places on Kubernetes: Jobs that the API server holds.

By REST, the queue and Dagster's own ``K8sRunLauncher``, as in production. The API server is the
tests' fake: it validates manifests, and executes nothing.
"""

import time
from typing import Final, LiteralString

import yaml

from bench.engines.graphwright import Graphwright
from bench.engines.roles import Roles
from bench.engines.web import run
from bench.support.figures import figure
from bench.support.graphs import CHAIN_10, chain
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site
from foundation.database import connect
from foundation.ids import TenantId
from graph_defs.tenants import change_policy
from tests.kubernetes.server import ROOT, FakeKubernetes, fake_kubernetes

_NAMESPACE: Final = "runs"
_WARM_UP: Final = 20
_COUNT: Final = 200
_ROUNDS: Final = 3
_PATIENCE_SECONDS: Final = 90.0
_POLL_SECONDS: Final = 0.02

PLACED: Final[LiteralString] = """
SELECT count(*) AS placed FROM graphwright.run_queue WHERE state = 'placed'
"""


def measure(site: Site) -> Answer:
    folder = site.folder / "launches"
    folder.mkdir()
    with site.quiet(), fake_kubernetes(folder, [], executes=False) as fake:
        fake.namespace(_NAMESPACE)
        settings = folder / "dagster.yaml"
        settings.write_text(_dagster_yaml(fake))
        with site.roles(dagster_yaml=str(settings), worker_processes="1") as roles:
            with connect(roles.client.database) as database:
                allowed = {"isolations": ("warm", "kubernetes")}
                change_policy(database, TenantId("default"), allowed)
            return _answer(roles)


def _answer(roles: Roles) -> Answer:
    api = roles.client
    name = api.post({**chain(CHAIN_10), "isolation": "kubernetes"})
    roles.start("worker")
    _place(api, name, _WARM_UP, 0)
    rates: list[float] = []
    for round_ in range(_ROUNDS):
        took = _place(api, name, _COUNT, _WARM_UP + round_ * _COUNT)
        rates.append(_COUNT / took)
    return Answer({"placed": figure(rates, "/s")})


def _place(api: Graphwright, name: str, count: int, before: int) -> float:
    """Seconds from the first of ``count`` triggers until all are handed over to their Jobs."""
    began = time.perf_counter()
    run(api.trigger(name, count))
    with connect(api.database) as database:
        while True:
            row = database.execute(PLACED).fetchone()
            assert row is not None
            took = time.perf_counter() - began
            if row["placed"] >= before + count:
                return took
            if took > _PATIENCE_SECONDS:
                raise RuntimeError(f"{row['placed'] - before} of {count} runs were placed")
            time.sleep(_POLL_SECONDS)


def _dagster_yaml(fake: FakeKubernetes) -> str:
    """The project's, but for the launcher's configuration."""
    found = yaml.safe_load((ROOT / "dagster.yaml").read_text("utf-8"))
    found["run_launcher"]["config"] = {
        "kubernetes": {
            "load_incluster_config": False,
            "kubeconfig_file": str(fake.kubeconfig),
            "job_namespace": _NAMESPACE,
            "job_image": "graphwright:bench",
            "service_account_name": "default",
            "instance_config_map": "none",
            "dagster_home": "/var/lib/graphwright/dagster",
        }
    }
    return yaml.safe_dump(found)


QUESTION: Final = Question(
    title="Runs placed on Kubernetes by one worker, execution off (the API server is a fake)",
    aims=(Aim("placed", 20, "/s", at_least=True),),
    measure=measure,
)
