"""Logging of a process of ours: one line an event, on stderr, where supervisors collect it."""

import logging

_FORMAT = "%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s"
_CHATTY = ("httpx", "psycopg.pool")


def configure_logs() -> None:
    """Call once, at an entry point."""
    logging.basicConfig(level=logging.INFO, format=_FORMAT)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
