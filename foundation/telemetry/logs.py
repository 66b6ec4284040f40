"""Logging of a process of ours: one line an event, on stderr, where supervisors collect it.

As text for people, or as JSON with the ids of the request, the run and the tenant that a line is
about. What looks like a credential is struck out of both, whoever wrote it.
"""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from foundation.settings import LogFormat
from foundation.telemetry.context import REQUEST_ID, RUN_ID, TENANT

ACCESS: Final = "graphwright.access"
"""The logger of requests. Its lines are made of known parts, and only written as JSON."""

_FORMAT: Final = "%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s"
_CHATTY: Final = ("httpx", "psycopg.pool", "urllib3")
_IDS: Final = (("request_id", REQUEST_ID), ("run_id", RUN_ID), ("tenant", TENANT))
_STRUCK_OUT: Final = "…"
# Tokens of ours and of others (JWT), API keys and what follows from them, a URL's password, and
# query strings, where browsers have to put tokens.
_CREDENTIAL: Final = re.compile(
    r"eyJ[\w-]{6,}\.[\w-]+(?:\.[\w-]*)?"
    r"|\bgw[a-z]?_[\w-]{20,}"
    r"|(?<=[Bb]earer )\S+"
    r"|(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"
    r"|(?<=\?)[\w.~-]+=[^\s'\"]*"
)


def configure_logs(log_format: LogFormat = "") -> None:
    """Call once, at an entry point. By default text on a terminal, and JSON elsewhere."""
    as_json = log_format == "json" or (not log_format and not sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if as_json else TextLines(_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger(ACCESS).disabled = not as_json
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def struck_out(text: str) -> str:
    """The text without what looks like a credential."""
    return _CREDENTIAL.sub(_STRUCK_OUT, text)


class TextLines(logging.Formatter):
    """Lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        return struck_out(super().format(record))


class JsonLines(logging.Formatter):
    """One JSON object a line: `time level logger message`, the ids that are known, `exception`.

    ``extra={"fields": {…}}`` adds fields as they are: nobody strikes anything out of those.
    """

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        if record.name != ACCESS:
            line["message"] = struck_out(line["message"])
        for name, context in _IDS:
            if value := context.get():
                line[name] = value
        line |= getattr(record, "fields", {})
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["exception"] = struck_out(record.exc_text)
        try:
            return orjson.dumps(line, default=str).decode()
        except (TypeError, ValueError):  # half a surrogate pair, or a number past 64 bits
            return json.dumps(line, default=str)
