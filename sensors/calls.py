"""One call of a URL for a notice: what is sent, and what the answer means.

Signed as Standard Webhooks has it: https://github.com/standard-webhooks/standard-webhooks, spec v1.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
from standardwebhooks import Webhook

from graph_defs.json_values import JsonObject
from sensors.notices import EndedRun, Notice
from sensors.signatures.standard_webhooks import signing_key

MOST_ATTEMPTS: Final = 10
_FIRST_DELAY: Final = 5.0
_FACTOR: Final = 4.0
_LONGEST_DELAY: Final = 6 * 3_600.0
_JITTER: Final = 0.2
_MAX_TEXT: Final = 4_000
"""Characters of each text of the run's error that is sent along."""
_MAX_PHRASE: Final = 80
_GONE: Final = 410


class CallFailed(Exception):
    """The call has failed, for this reason."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an attempt."""

    reason: str = ""
    """Why it has failed; empty where it has not."""
    is_final: bool = True
    """Whether no attempt is to follow."""
    retry_after: float = 0.0
    """Seconds that the receiver asks to be spared."""


def body_of(notice: Notice, run: EndedRun, api_url: str) -> str:
    """The JSON that is sent: the same in each attempt, and in ASCII."""
    error = None if run.error is None else {name: _cut(text) for name, text in run.error.items()}
    payload: JsonObject = {
        "type": f"run.{run.status}",
        "timestamp": run.ended_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "data": {
            "run_id": notice.run_id,
            "graph": run.graph,
            "version": run.version,
            "status": run.status,
            "error": error,
            "links": {"run": f"{api_url.rstrip('/')}/api/v1/runs/{notice.run_id}"},
        },
    }
    return json.dumps(payload, separators=(",", ":"))


def headers_of(notice_id: str, body: str, secrets: Sequence[str], at: datetime) -> dict[str, str]:
    """The headers of an attempt, with a signature for each of the secrets.

    Raises :class:`CallFailed` where none of them can sign.
    """
    keys = [key for secret in secrets if (key := signing_key(secret))]
    signatures = [Webhook(key).sign(notice_id, at, body) for key in keys]
    if not signatures:
        raise CallFailed("the secret is not base64, as Standard Webhooks has it")
    return {
        "content-type": "application/json",
        "user-agent": "graphwright",
        "webhook-id": notice_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def answer_of(response: httpx.Response, at: datetime) -> Answer:
    """What the receiver says by its status: 2xx has it, 410 wants no more, all others may yet."""
    if response.is_success:
        return Answer()
    phrase = response.reason_phrase[:_MAX_PHRASE]
    reason = f"the receiver answered {response.status_code} {phrase}".rstrip()
    if response.status_code == _GONE:
        return Answer(reason)
    return Answer(reason, False, _retry_after(response.headers.get("retry-after", ""), at))


def delay_seconds(attempts: int, answer: Answer, chance: float) -> float | None:
    """From the last of so many attempts to the next one; None where there is to be none.

    5 s, 20 s, 80 s, … up to 6 h each, and up to a fifth more, as ``chance`` from 0 to 1 has it: ten
    attempts in 20 to 24 hours. A receiver may ask for longer, up to 6 h.
    """
    if answer.is_final or attempts >= MOST_ATTEMPTS:
        return None
    delay = min(_FIRST_DELAY * _FACTOR ** (attempts - 1), _LONGEST_DELAY)
    return max(delay * (1 + _JITTER * chance), min(answer.retry_after, _LONGEST_DELAY))


def _cut(value: Any) -> Any:
    return value[:_MAX_TEXT] if isinstance(value, str) else value


def _retry_after(text: str, at: datetime) -> float:
    """RFC 9110 section 10.2.3: seconds, or a date. 0 for what is neither."""
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return (until.replace(tzinfo=until.tzinfo or UTC) - at).total_seconds()
