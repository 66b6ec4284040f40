"""What the time of the day, of the minute and of a token would do to a test, it does itself."""

import time
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

_NEAR_SECONDS = 30.0


class Clock:
    """``time.time`` that stands still, so that nothing is over before a test says so."""

    def __init__(self) -> None:
        self._now = time.time()

    def __call__(self) -> float:
        return self._now

    def forward(self, seconds: float) -> None:
        self._now += seconds


def let_pass(hour: int, minute: int, timezone: str) -> None:
    """Wait until it has been so late, if that is less than half a minute away."""
    now = datetime.now(ZoneInfo(timezone))
    moment = timedelta(hours=hour, minutes=minute)
    today = timedelta(hours=now.hour, minutes=now.minute, seconds=now.second)
    seconds = (moment - today).total_seconds() % timedelta(days=1).total_seconds()
    if seconds <= _NEAR_SECONDS:
        time.sleep(seconds + 0.1)
