"""Settings: read once, at the entry points, and handed down by constructor.

A setting comes from the environment (``GRAPHWRIGHT_`` + name), else from ``stack.json`` in the
state folder, which ``graphwright up`` writes, else from its default here. docs/settings.md
describes each.
"""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import (
    BaseSettings,
    JsonConfigSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

STACK_FILE = "stack.json"


class Limits(BaseSettings):
    """What one document, expression or value may cost: bounds that refuse, with a clear error."""

    model_config = SettingsConfigDict(env_prefix="GRAPHWRIGHT_", frozen=True)

    max_nodes: int = Field(default=10_000, ge=1, description="Nodes in one graph.")
    max_document_bytes: int = Field(
        default=4 * 2**20, ge=1, description="Bytes of one document, as sent."
    )
    max_depth: int = Field(
        default=64, ge=1, description="Nesting of objects and arrays in a document."
    )
    max_expression_length: int = Field(
        default=4_096, ge=1, description="Characters of one CEL expression."
    )
    max_expression_cost: int = Field(
        default=64 * 2**20,
        ge=1,
        description="Estimated work of one expression, in bytes touched, past which it runs in a "
        "process of its own with bounded memory and time.",
    )
    max_expression_memory_bytes: int = Field(
        default=2**30, ge=1, description="Memory of the process in which a costly expression runs."
    )
    max_expression_seconds: float = Field(
        default=5.0,
        gt=0,
        description="Time that a costly expression may take before its node fails.",
    )
    max_params_bytes: int = Field(
        default=2**20, ge=1, description="Bytes of one run's params, as JSON."
    )
    max_output_bytes: int = Field(
        default=64 * 2**20, ge=1, description="Bytes of one node's output, as JSON."
    )


class Settings(BaseSettings):
    """Everything that an installation can set, but for the limits."""

    model_config = SettingsConfigDict(env_prefix="GRAPHWRIGHT_", frozen=True, extra="ignore")

    state: Path = Field(default=Path(".graphwright"), description="The state folder.")
    database_url: str = Field(
        default="", description="PostgreSQL, as `postgresql://…`.", repr=False
    )
    redis_url: str = Field(
        default="", description="Redis or Valkey, as `redis://…` or `unix://…`.", repr=False
    )
    api_url: str = Field(default="http://127.0.0.1:8000", description="Where clients find the API.")
    token: str = Field(default="", description="Bearer token that the CLI sends.", repr=False)
    api_host: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    api_port: int = Field(default=8000, ge=0, le=65535, description="Port of the API.")
    code_port: int = Field(
        default=4000, ge=0, le=65535, description="Port of the Dagster code server."
    )
    dagster_port: int = Field(default=3000, ge=0, le=65535, description="Port of the Dagster UI.")
    dagster_url: str = Field(
        default="",
        description="Where our processes find the Dagster UI; by default its port on loopback.",
    )
    file_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), description="Folders below which `file.read` may read; separated as in PATH."
    )
    http_private: bool = Field(
        default=False, description="Whether `http.request` may call loopback and private addresses."
    )
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
    leave_seconds: float = Field(
        default=10.0,
        ge=0,
        description="A run that does nothing but wait for longer than this leaves its worker.",
    )
    drain_seconds: float = Field(
        default=20.0,
        ge=0,
        description="Time that a stopping worker gives its runs before it hands them back.",
    )
    window_size: int = Field(
        default=200, ge=1, description="Graphs that the Dagster UI lists as jobs."
    )
    compiled_jobs: int = Field(
        default=256,
        ge=1,
        description="Compiled jobs that one process keeps; large graphs count by their nodes, "
        "100 to a job.",
    )

    @field_validator("file_roots", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(Path(part) for part in value.split(os.pathsep) if part)
        return value

    @field_validator("state", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        given = {**env_settings(), **init_settings()}
        state = Path(str(given.get("state", ".graphwright"))).expanduser()
        stack = JsonConfigSettingsSource(settings_cls, json_file=state / STACK_FILE)
        return init_settings, env_settings, stack
