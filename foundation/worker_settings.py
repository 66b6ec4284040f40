"""The settings of workers: how much they do at once, and how they wait and stop."""

from pydantic import BaseModel, Field


class WorkerSettings(BaseModel):
    """A part of :class:`foundation.settings.Settings`, which is what processes read."""

    worker_processes: int = Field(
        default=2, ge=1, description="Worker processes that one `graphwright worker` keeps."
    )
    worker_memory_mb: int = Field(
        default=1024,
        ge=0,
        description="Resident memory, in MiB, past which a worker process is replaced by a fresh "
        "one when its runs have ended; 0 for no bound.",
    )
    worker_runs: int = Field(
        default=32,
        ge=1,
        description="Runs that one worker process executes at once; those that only wait do not "
        "count.",
    )
    run_nodes: int = Field(default=256, ge=1, description="Nodes that one run executes at once.")
    worker_threads: int = Field(
        default=32, ge=1, description="Threads for blocking nodes in one worker."
    )
    worker_cpus: int = Field(
        default=2, ge=1, description="Processes for nodes that compute in one worker."
    )
    worker_steps: int = Field(
        default=32,
        ge=1,
        description="Steps on other platforms (`docker.run` and its like) that one worker follows "
        "at once.",
    )
    step_log_lines: int = Field(
        default=10_000,
        ge=0,
        description="Lines of one such step that become events of its run; further ones are "
        "dropped.",
    )
    aws_worker_credentials: bool = Field(
        default=False,
        description="Whether nodes without AWS keys of their own may assume the roles that their "
        "tenant may use, by the credentials that the worker has.",
    )
    worker_solo_runs: int = Field(
        default=4,
        ge=1,
        description="Processes that one worker keeps at once for runs with `isolation: process`.",
    )
    placing_threads: int = Field(
        default=16,
        ge=1,
        description="Runs that one worker starts in containers or pods at the same time.",
    )
    placing_timeout_seconds: float = Field(
        default=300.0,
        gt=0,
        description="Time that a container or pod has to start and claim its run, before it is "
        "removed and the run placed again; and that a pod of `kubernetes.job` has to start.",
    )
    leave_seconds: float = Field(
        default=10.0,
        ge=0,
        description="A run that does nothing but wait for longer than this leaves its worker.",
    )
    lease_seconds: float = Field(
        default=10.0,
        gt=0,
        description="A worker that was not heard of for so long is taken for dead, and its runs go "
        "to others.",
    )
    drain_seconds: float = Field(
        default=20.0,
        ge=0,
        description="Time that a stopping worker gives its runs before it hands them back.",
    )
    cancel_grace_seconds: float = Field(
        default=5.0,
        ge=0,
        description="Time that a node has to clean up when it is cancelled, or its timeout is "
        "over, before it is abandoned.",
    )
