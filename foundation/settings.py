"""Settings: read once, at the entry points, and handed down by constructor.

A setting comes from the environment (``GRAPHWRIGHT_`` + name), else from ``stack.json`` in the
state folder, which ``graphwright up`` writes, else from its default here. docs/settings.md
describes each.
"""

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    JsonConfigSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from foundation.object_store import check_url
from foundation.worker_settings import WorkerSettings

STACK_FILE = "stack.json"

_WEB_URL = re.compile(r"https?://[^/\s]+(/\S*)?")
_ORIGIN = re.compile(r"\*|https?://[^/\s]+")

LogFormat: TypeAlias = Literal["", "text", "json"]


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
    max_webhook_bytes: int = Field(
        default=2**20, ge=1, description="Bytes of the body of one webhook call."
    )


class Settings(WorkerSettings, BaseSettings):
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
    tls_certificate_file: str = Field(
        default="",
        description="File of the certificate, and those that vouch for it, as PEM, with which the "
        "API and the webhook receiver serve HTTPS; without one they serve HTTP.",
    )
    tls_key_file: str = Field(default="", description="File of that certificate's key, as PEM.")
    requests_per_minute: int = Field(
        default=60_000,
        ge=1,
        description="Requests a minute that one tenant may send, to all API processes together.",
    )
    requests_per_minute_address: int = Field(
        default=600,
        ge=1,
        description="Requests a minute without a valid token that one address may send, to all API "
        "processes together.",
    )
    oidc_issuer: str = Field(
        default="",
        description="The OpenID provider whose tokens are taken besides our own: its `iss`, as "
        "`https://login.example.org/`.",
    )
    oidc_audience: str = Field(
        default="", description="The `aud` that the provider's tokens must have."
    )
    oidc_jwks_url: str = Field(
        default="", description="Where the provider's keys are, as a JWKS document."
    )
    oidc_tenant_claim: str = Field(
        default="tenant",
        min_length=1,
        description="The claim of the provider's tokens that names the tenant.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins whose pages may call the API, as `https://app.example.org`; separated "
        "by commas, `*` for all.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed: "
        "addresses and networks, separated by commas.",
    )
    hooks_host: str = Field(
        default="127.0.0.1", description="Address that the webhook receiver listens on."
    )
    hooks_port: int = Field(
        default=8001, ge=0, le=65535, description="Port of the webhook receiver."
    )
    hooks_public_url: str = Field(
        default="",
        description="How senders reach the webhook receiver, as `https://hooks.example.org`; by "
        "default its port on loopback.",
    )
    hooks_per_minute: int = Field(
        default=6_000,
        ge=1,
        description="Calls a minute that one webhook accepts in one receiver process.",
    )
    shards: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Into how many parts the tenants are divided for the Dagster UI: each has its "
        "own webhook sensor, notify sensor and timer schedule, to switch off and on.",
    )
    master_key_file: str = Field(
        default="",
        description="File of the master key that secrets are encrypted under, or `awskms://` and a "
        "key's ARN or alias; by default `master.key` in the state folder, made on first use.",
    )
    code_host: str = Field(
        default="127.0.0.1",
        description="Where the Dagster UI and daemon find the code server; it listens on all "
        "addresses unless this is one of loopback.",
    )
    code_port: int = Field(
        default=4000, ge=0, le=65535, description="Port of the Dagster code server."
    )
    dagster_host: str = Field(
        default="127.0.0.1", description="Address that the Dagster UI listens on."
    )
    dagster_port: int = Field(default=3000, ge=0, le=65535, description="Port of the Dagster UI.")
    dagster_yaml: str = Field(
        default="",
        description="File with the configuration of the Dagster instance; by default the "
        "`dagster.yaml` that Graphwright ships.",
    )
    metrics_host: str = Field(
        default="127.0.0.1", description="Address that metrics and health checks listen on."
    )
    metrics_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port of `/metrics`, `/healthz` and `/readyz`, one for each process; 0 for "
        "none.",
    )
    otlp_endpoint: str = Field(
        default="",
        description="Collector that traces are sent to as OTLP over HTTP, as "
        "`http://collector:4318`; without one nothing is traced.",
    )
    log_format: LogFormat = Field(
        default="",
        description="`json` or `text`; by default text on a terminal and in the local stack, and "
        "JSON elsewhere.",
    )
    dagster_url: str = Field(
        default="",
        description="Where our processes find the Dagster UI; by default its port on loopback.",
    )
    object_store: str = Field(
        default="",
        description="Where large outputs are kept: `file:///folder` or "
        "`s3://bucket/prefix?endpoint=…&region=…`; by default `objects` in the state folder.",
    )
    inline_output_bytes: int = Field(
        default=128 * 2**10,
        ge=0,
        description="Bytes of JSON past which a node's output goes to the object store instead of "
        "into the database.",
    )
    file_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), description="Folders below which `file.read` may read; separated as in PATH."
    )
    http_private: bool = Field(
        default=False, description="Whether `http.request` may call loopback and private addresses."
    )
    idempotency_hours: float = Field(
        default=24.0, gt=0, description="How long an `Idempotency-Key` of a trigger is kept."
    )
    retention_days: int = Field(
        default=30,
        ge=0,
        description="Days that a run is kept after its end, with its events and outputs, and a "
        "delivery after its verdict, where the tenant has no number of its own; 0 is for ever.",
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

    @field_validator("cors_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("cors_origins", mode="after")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin, such as https://app.example.org")
        return value

    @field_validator("trusted_proxies", mode="after")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)
        return value

    @field_validator("object_store", mode="after")
    @classmethod
    def _names_a_store(cls, value: str) -> str:
        if value:
            check_url(value)
        return value

    @field_validator("state", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _has_certificates_with_keys(self) -> Self:
        if bool(self.tls_certificate_file) != bool(self.tls_key_file):
            raise ValueError("tls_certificate_file and tls_key_file need each other")
        return self

    @model_validator(mode="after")
    def _trusts_whole_providers(self) -> Self:
        if self.oidc_issuer:
            for url in (self.oidc_issuer, self.oidc_jwks_url):
                if not _WEB_URL.fullmatch(url):
                    raise ValueError(f"{url!r} is no http:// or https:// address of the provider")
            if not self.oidc_audience:
                raise ValueError("oidc_issuer needs oidc_audience, or any token of it would do")
        return self

    @property
    def code_server(self) -> tuple[str, int]:
        """Host and port of the Dagster code server, as the workspace names them."""
        return self.code_host, self.code_port

    @property
    def hooks_url(self) -> str:
        """How senders reach the webhook receiver."""
        scheme = "https" if self.tls_certificate_file else "http"
        return self.hooks_public_url.rstrip("/") or f"{scheme}://127.0.0.1:{self.hooks_port}"

    @property
    def objects_url(self) -> str:
        """The object store's URL."""
        return self.object_store or (self.state / "objects").as_uri()

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
        stack = _StackFile(settings_cls, json_file=state / STACK_FILE)
        return init_settings, env_settings, stack


class _StackFile(JsonConfigSettingsSource):
    """``stack.json``, whose token is for the API of that stack alone."""

    def __call__(self) -> dict[str, Any]:
        found = super().__call__()
        chosen = self.current_state.get("api_url")
        if chosen is not None and chosen.rstrip("/") != found.get("api_url", "").rstrip("/"):
            found.pop("token", None)
        return found
