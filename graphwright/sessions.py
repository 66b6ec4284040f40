"""A profile's session, kept between invocations, so that each need not log in again.

In a file of mode 0600 in the folder of the profiles, under a lock: a refresh token is good for one
use, and several commands may run at once.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from foundation.errors import Unauthenticated
from graphwright.client import Client, Retry
from graphwright.profiles import Profile, config_folder

_EARLY_SECONDS = 60.0
_RETRY = Retry(attempts=3)


class KeptSession:
    """Gives the token of a profile, as ``Client`` asks for it."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._given = False

    def __call__(self) -> str:
        """The kept token, or a new one where that ends soon, or it was given here before.

        Whoever asks a second time was refused with the first.
        """
        with _locked(_file_of(self._profile)) as descriptor:
            kept = self._kept(descriptor)
            if kept and not self._given and time.time() < kept["renew_at"]:
                token = str(kept["access_token"])
            else:
                token = self._renew(descriptor, kept)
            self._given = True
            return token

    def _kept(self, descriptor: int) -> dict[str, Any]:
        with suppress(ValueError):
            kept = json.loads(_read(descriptor))
            if kept["of"] == self._digest():
                return kept
        return {}

    def _renew(self, descriptor: int, kept: dict[str, Any]) -> str:
        # Not kept meanwhile: sent a second time, a refresh token would end the session.
        os.ftruncate(descriptor, 0)
        asked = time.time()
        login = None
        with Client(self._profile.api_url, retry=_RETRY) as client:
            if kept:
                with suppress(Unauthenticated):
                    login = client.auth.refresh(kept["refresh_token"])
            if login is None:
                login = client.auth.login(self._profile.api_key)
        early = min(_EARLY_SECONDS, login["expires_in"] / 5)
        session = {
            "of": self._digest(),
            "access_token": login["access_token"],
            "refresh_token": login["refresh_token"],
            "renew_at": asked + login["expires_in"] - early,
        }
        os.pwrite(descriptor, json.dumps(session).encode(), 0)
        return login["access_token"]

    def _digest(self) -> str:
        """Of whom the session is: a profile may be given another key."""
        whose = f"{self._profile.api_url} {self._profile.api_key}"
        return hashlib.sha256(whose.encode()).hexdigest()


def end_session(profile: Profile) -> None:
    """Log out, where there is a session. Raises Unavailable where the API cannot be reached."""
    path = _file_of(profile)
    if not path.exists():
        return
    with _locked(path) as descriptor:
        kept = _read(descriptor)
        path.unlink()
        if kept:
            with Client(profile.api_url, retry=_RETRY) as client, suppress(Unauthenticated):
                client.auth.logout(json.loads(kept)["refresh_token"])


def _file_of(profile: Profile) -> Path:
    return config_folder() / "sessions" / f"{profile.name}.json"


@contextmanager
def _locked(path: Path) -> Generator[int]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> str:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode()
