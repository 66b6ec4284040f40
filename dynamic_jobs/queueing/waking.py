"""Waking workers and dispatchers that have nothing to do."""

from typing import Final, LiteralString

WAKE_CHANNEL: Final = "graphwright_queue"
DISPATCH_CHANNEL: Final = "graphwright_triggers"
"""On which dispatchers hear that there is something to do: the message says what."""
DELIVERIES: Final = "deliveries"
COSTLY_DELIVERIES: Final = "costly deliveries"
NOTICES: Final = "notices"
TIMERS: Final = "timers"
DELAYED: Final = "delayed"
"""The message when some of the new runs are to start later; else it is empty."""

# NOTIFY takes a lock of the whole instance at commit, so it is sent only to who is waiting, and
# is still there: an idle worker says so every second.
SOMEBODY_IDLES: Final[LiteralString] = """EXISTS (
    SELECT FROM graphwright.workers WHERE idle AND seen_at > now() - interval '10 seconds'
)"""

WAKE: Final[LiteralString] = f"""
SELECT pg_notify('graphwright_queue', '') WHERE {SOMEBODY_IDLES}
"""
