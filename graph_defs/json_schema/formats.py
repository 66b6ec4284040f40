"""The values of ``format`` that are enforced; any other is refused in a schema."""

import ipaddress
from collections.abc import Callable, Mapping
from datetime import date
from typing import Final
from urllib.parse import urlsplit

import re2

_DATE = re2.compile(r"^\d{4}-\d{2}-\d{2}$")
_TIME = re2.compile(
    r"^([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([zZ]|[+-]([01]\d|2[0-3]):[0-5]\d)$"
)
_ATOM = r"[^\s@\"(),:;<>\[\\\].]+"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re2.compile(rf"^{_ATOM}(\.{_ATOM})*@{_LABEL}(\.{_LABEL})*$")
_UUID = re2.compile(r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")
_URI = re2.compile(
    r"^[A-Za-z][A-Za-z0-9+.-]*:([A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*$"
)


def _is_date(value: str) -> bool:
    if not _DATE.search(value):
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_date_time(value: str) -> bool:
    return len(value) > 11 and value[10] in "tT" and _is_date(value[:10]) and _is_time(value[11:])


def _is_time(value: str) -> bool:
    if not _TIME.search(value):
        return False
    return value[6:8] != "60" or _is_leap_second(value)


def _is_leap_second(value: str) -> bool:
    """RFC 3339, section 5.7: leap seconds are at 23:59:60 UTC."""
    minutes = int(value[:2]) * 60 + int(value[3:5])
    if value[-1] not in "zZ":
        sign = -1 if value[-6] == "+" else 1
        minutes += sign * (int(value[-5:-3]) * 60 + int(value[-2:]))
    return minutes % 1440 == 1439


def _is_address(
    value: str, kind: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]
) -> bool:
    try:
        kind(value)
    except ValueError:
        return False
    return value.isascii() and "%" not in value


def _is_uri(value: str) -> bool:
    if not _URI.search(value):
        return False
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        return False
    return "[" not in parts.path + parts.query + parts.fragment and "#" not in parts.fragment


FORMATS: Final[Mapping[str, Callable[[str], bool]]] = {
    "date": _is_date,  # RFC 3339
    "date-time": _is_date_time,
    "time": _is_time,
    "email": lambda value: (
        _EMAIL.search(value) is not None
    ),  # RFC 5321, no quoted name, no address literal
    "ipv4": lambda value: _is_address(value, ipaddress.IPv4Address),
    "ipv6": lambda value: _is_address(value, ipaddress.IPv6Address),
    "uri": _is_uri,  # RFC 3986
    "uuid": lambda value: _UUID.search(value) is not None,
}
