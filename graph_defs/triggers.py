"""What starts a graph's runs by itself, and what their end sets off: parts of the document."""

import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, JsonValue, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from graph_defs.names import GraphName, NodeName
from graph_defs.part import Part

TriggerName: TypeAlias = NodeName
SecretName: TypeAlias = NodeName

Scheme: TypeAlias = Literal[
    "github", "standard-webhooks", "stripe", "slack", "hmac", "token", "none"
]
"""How a webhook proves who sent it."""

Encoding: TypeAlias = Literal["hex", "base64"]

_HEADER: Final = r"^[A-Za-z0-9-]{1,64}$"
_DURATION: Final = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_MOST_DAYS: Final = 366

HeaderName = Annotated[str, Field(pattern=_HEADER)]


def seconds_of(duration: str) -> int:
    """The seconds of a duration such as ``15m``. Raises ValueError for anything else."""
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise ValueError(duration)
    return int(match[1]) * _UNITS[match[2]]


def _check_duration(duration: str) -> str:
    match = _DURATION.fullmatch(duration)
    if match is None or seconds_of(duration) > _MOST_DAYS * 86_400:
        raise PydanticCustomError(
            "bad_value",
            "`{duration}` is no duration of at most 366 days.",
            {
                "duration": duration[:80],
                "hint": "A whole number and a unit: `30s`, `15m`, `6h`, `1d`.",
            },
        )
    return duration


def _check_instant(text: str) -> str:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise PydanticCustomError(
            "bad_value",
            "`{text}` is no instant.",
            {"text": text[:80], "hint": "Write it with its offset: `2030-01-31T00:00:00Z`."},
        )
    return text


Duration = Annotated[
    str,
    AfterValidator(_check_duration),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$"}),
]
Instant = Annotated[
    str, AfterValidator(_check_instant), WithJsonSchema({"type": "string", "format": "date-time"})
]
Dedupe = Annotated[
    str,
    AfterValidator(lambda text: text if text == "off" else _check_duration(text)),
    WithJsonSchema({"type": "string", "pattern": f"^({_DURATION.pattern}|off)$"}),
]
Expression = Annotated[str, Field(min_length=1, max_length=8_192)]

GivenParams: TypeAlias = dict[str, JsonValue] | Expression


class WebhookTrigger(Part):
    """Starts a run for each signed call of an address of its own."""

    type: Literal["webhook"] = Field(description="A webhook.")
    scheme: Scheme = Field(
        description="How the sender proves itself: `github`, `standard-webhooks`, `stripe` and "
        "`slack` as they publish it; `hmac` over the body, as the fields below say; `token`, a "
        "secret in a header; `none`, for whoever knows the address."
    )
    secret: SecretName | None = Field(
        None, description="Name of the secret that sender and tenant share."
    )
    header: HeaderName | None = Field(
        None,
        description="Of `hmac` and `token`: the header with the signature or the token; by default "
        "`X-Signature`, and `Authorization`.",
    )
    algorithm: Literal["sha256", "sha512", "sha1"] = Field(
        "sha256", description="Of `hmac`: the hash."
    )
    encoding: Encoding = Field("hex", description="Of `hmac`: how the signature is written.")
    prefix: str = Field(
        "", max_length=32, description="Of `hmac`: what stands before the signature: `sha256=`."
    )
    timestamp_header: HeaderName | None = Field(
        None,
        description="Of `hmac`: the header with the Unix time of sending. What is signed is then "
        "`<time>.<body>`, and old calls are refused.",
    )
    id_header: HeaderName | None = Field(
        None,
        description="Of `hmac`, `token` and `none`: the header with the sender's own id of the "
        "call. Calls with the same id are one.",
    )
    dedupe: Dedupe | None = Field(
        None,
        description="How long a repeated call is known as such: by its id for `3d`, where the "
        "scheme has none by its content for `5m`.",
    )
    filter: Expression | None = Field(
        None,
        description="`${{ CEL }}` over `trigger.body`, `trigger.headers` (names in lower case) and "
        "`trigger.query`: only calls for which it is true start a run.",
    )
    params: GivenParams = Field(
        default={},
        description="The run's params. Values may hold `${{ CEL }}` over the same; the whole may "
        "be one expression.",
    )

    @model_validator(mode="after")
    def _fields_of_the_scheme(self) -> Self:
        if self.scheme == "none" and self.secret is not None:
            raise _conflict("The scheme `none` takes no secret.", "Leave `secret` out.")
        if self.scheme != "none" and self.secret is None:
            raise _conflict(
                f"The scheme `{self.scheme}` needs a secret.",
                "Name one in `secret`; `graphwright secret set NAME` stores it.",
            )
        for field, schemes in _ONLY_OF.items():
            if field in self.model_fields_set and self.scheme not in schemes:
                raise _conflict(
                    f"`{field}` is nothing that the scheme `{self.scheme}` asks for.",
                    f"It is of {', '.join(f'`{scheme}`' for scheme in schemes)}.",
                )
        return self


_ONLY_OF: Final[dict[str, tuple[Scheme, ...]]] = {
    "header": ("hmac", "token"),
    "algorithm": ("hmac",),
    "encoding": ("hmac",),
    "prefix": ("hmac",),
    "timestamp_header": ("hmac",),
    "id_header": ("hmac", "token", "none"),
}


class TimerTrigger(Part):
    """Starts a run at each due time."""

    type: Literal["timer"] = Field(description="A timer.")
    cron: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="Five fields: minute, hour, day of the month, month, day of the week."
    )
    every: Duration | None = Field(
        None, description="`15m`: each multiple of it since 1970 began, in UTC."
    )
    timezone: str = Field(
        "UTC", max_length=64, description="IANA name of the zone in which `cron` is read."
    )
    catch_up: Literal["none", "latest", "all"] = Field(
        "none",
        description="What becomes of due times that passed while nothing ran: they are left out; "
        "the latest starts a run; or all do.",
    )
    jitter: Duration | None = Field(
        None, description="Each run starts up to so much later than it is due, at random."
    )
    not_after: Instant | None = Field(None, description="No due time lies after this.")
    params: GivenParams = Field(
        default={},
        description="The run's params. Values may hold `${{ CEL }}` over `trigger.due_at`, such as "
        "`2030-01-31T00:00:00Z`.",
    )

    @model_validator(mode="after")
    def _one_recurrence(self) -> Self:
        if (self.cron is None) == (self.every is None):
            raise _conflict("A timer has either `cron` or `every`.", "Give one of the two.")
        if self.every is not None and "timezone" in self.model_fields_set:
            raise _conflict("`every` counts in UTC.", "Leave `timezone` out, or use `cron`.")
        return self


Trigger: TypeAlias = Annotated[WebhookTrigger | TimerTrigger, Field(discriminator="type")]


Ending: TypeAlias = Literal["succeeded", "failed", "cancelled"]


def _check_different(endings: list[Ending]) -> list[Ending]:
    if len(set(endings)) < len(endings):
        raise PydanticCustomError(
            "bad_value", "An ending is named twice.", {"hint": "Name each once."}
        )
    return endings


class Notify(Part):
    """What is done when a run has ended: another graph is started, or a URL is called."""

    on: Annotated[list[Ending], AfterValidator(_check_different)] = Field(
        min_length=1,
        max_length=3,
        json_schema_extra={"uniqueItems": True},
        description="How the run has ended.",
    )
    graph: GraphName | None = Field(None, description="The graph to start, of the same tenant.")
    params: GivenParams = Field(
        default={},
        description="The params of that graph's run. Values may hold `${{ CEL }}` over `trigger`: "
        "`run_id`, `graph`, `version`, `status`, `params`, `outputs` and `error` of the run.",
    )
    url: Annotated[str, Field(pattern="^https?://[^ ]+$", max_length=2_048)] | None = Field(
        None, description="The URL to POST to, as Standard Webhooks has it."
    )
    secret: SecretName | None = Field(
        None, description="Name of the secret that signs the call of `url`."
    )

    @model_validator(mode="after")
    def _one_receiver(self) -> Self:
        if (self.graph is None) == (self.url is None):
            raise _conflict("A notice goes to a `graph` or a `url`.", "Give one of the two.")
        if self.url is not None and self.secret is None:
            raise _conflict("A call of `url` is signed.", "Name the secret that it is signed with.")
        other = "params" if self.url is not None else "secret"
        if other in self.model_fields_set:
            goes_with = "graph" if other == "params" else "url"
            raise _conflict(f"`{other}` goes with `{goes_with}`.", f"Leave `{other}` out.")
        return self


def _conflict(message: str, hint: str) -> PydanticCustomError:
    escaped: Any = message.replace("{", "{{").replace("}", "}}")
    return PydanticCustomError("conflicting_fields", escaped, {"hint": hint})
