"""How long a worker takes to make a document ready to run: ``python -m bench.support.compiling N``.

Reads a valid document from stdin, compiles it ``N`` times, each time as a version that was never
seen, and prints the seconds of each as JSON. A process of its own: what the measuring process holds
in memory does not slow it down.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bench.support.machine import ROOT

_SECONDS = 300


def compile_seconds(document: Mapping[str, Any], count: int) -> list[float]:
    """The seconds of ``count`` compilations, in another process, after one to warm up."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.support.compiling", str(count + 1)],
        cwd=ROOT,
        input=json.dumps(document),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=_SECONDS,
    )
    return json.loads(done.stdout)[1:]


def _main() -> None:
    import node_types
    from dynamic_jobs.compiling.compiler import Compiler
    from dynamic_jobs.executing.runtime import NodeRuntime
    from foundation.ids import GraphId, GraphVersionId, TenantId, new_id
    from foundation.settings import Limits, Settings
    from graph_defs.catalogue import Catalogue
    from graph_defs.fingerprint import Canonical
    from graph_defs.versions import GraphVersion

    document = json.load(sys.stdin)
    catalogue = Catalogue.from_packages(node_types)
    types = {node["type"] for node in document["nodes"].values()}
    took: list[float] = []
    with NodeRuntime(Settings(), Limits(), catalogue) as runtime:
        for _ in range(int(sys.argv[1])):
            version = GraphVersion(
                graph_version_id=GraphVersionId(new_id()),
                graph_id=GraphId(new_id()),
                tenant=TenantId("bench"),
                name=document["metadata"]["name"],
                version=1,
                fingerprint=Canonical.of(document).fingerprint,
                document=document,
                node_types={name: catalogue[name].version for name in types},
                author="bench",
                created_at=datetime.now(UTC),
            )
            began = time.perf_counter()
            compiled = Compiler(runtime).compile(version)
            # All that a run refers to, also where it is only made when it is asked for.
            assert compiled.plan_snapshot_id
            assert compiled.job_snapshot_id
            took.append(time.perf_counter() - began)
    print(json.dumps(took))


if __name__ == "__main__":
    _main()
