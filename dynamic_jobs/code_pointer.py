"""How any process loads a run's job: by tenant and version id, from the database.

Dagster stores this module's name with each run. A Kubernetes pod, a re-execution and a test call
:func:`load_job`; a warm worker has the job compiled already.
"""

from functools import cache

from dagster import JobDefinition
from dagster._core.code_pointer import CustomPointer, ModuleCodePointer
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository

import node_types
from dynamic_jobs.compiling.compiler import CompiledGraph, Compiler
from dynamic_jobs.executing.runtime import NodeRuntime
from foundation.database import Connection, connect
from foundation.ids import GraphVersionId, TenantId
from foundation.settings import Limits, Settings
from graph_defs.catalogue import Catalogue
from graph_defs.expressions import Evaluator
from graph_defs.stored_versions import load_version


def pointer_to(tenant: TenantId, graph_version_id: str, job_name: str) -> ReconstructableJob:
    """The code pointer that a run of this version carries."""
    # Dagster's build_reconstructable_job would load the job, only to ask its name.
    pointer = CustomPointer(
        ModuleCodePointer(__name__, "load_job", working_directory=None),
        [tenant, graph_version_id],
        [],
    )
    return ReconstructableJob(ReconstructableRepository(pointer), job_name)


def load_job(tenant: str, graph_version_id: str) -> JobDefinition:
    """Compile a stored version. The entry point of Dagster's processes, hence the settings here."""
    with connect(Settings().database_url) as connection:
        return compile_version(connection, TenantId(tenant), GraphVersionId(graph_version_id)).job


def compile_version(
    connection: Connection, tenant: TenantId, graph_version_id: GraphVersionId
) -> CompiledGraph:
    """Compile a stored version in a process that is not a worker of ours."""
    compiler = _compiler()
    compiled = compiler.cached(graph_version_id)
    if compiled is None or compiled.graph.version.tenant != tenant:  # which a run's tags only claim
        compiled = compiler.compile(load_version(connection, tenant, graph_version_id))
    return compiled


def evaluator() -> Evaluator:
    """What evaluates expressions in a process that is not a worker of ours."""
    return _runtime().evaluator


# Dagster calls load_job with strings only and many times, so the process keeps one of each.
@cache
def _runtime() -> NodeRuntime:
    return NodeRuntime(Settings(), Limits(), Catalogue.from_packages(node_types))


@cache
def _compiler() -> Compiler:
    return Compiler(_runtime())
