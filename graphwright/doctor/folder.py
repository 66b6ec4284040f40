"""This machine: the environment, the state folder, the keys in it, the ports."""

import difflib
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from typing import Final

from foundation.settings import Limits, Settings
from graphwright.doctor.finding import Finding, ok, skipped, warning, wrong
from graphwright.stackfile import supervisor_pid

_PREFIX: Final = "GRAPHWRIGHT_"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_MOUNTED: Final = 0o440  # as Kubernetes gives a secret to a pod
_KEY_BYTES: Final = 32
_DISK_BYTES: Final = 2**30
# Not settings, but ours: the command line's profile, and what tests are told.
_ALSO: Final = ("GRAPHWRIGHT_PROFILE", "GRAPHWRIGHT_TEST_")


def environment(_settings: Settings) -> Iterator[Finding]:
    """Every variable of our prefix is a setting."""
    names = {f"{_PREFIX}{name.upper()}" for name in (*Settings.model_fields, *Limits.model_fields)}
    given = {name for name in os.environ if name.startswith(_PREFIX)}
    unknown = sorted(name for name in given - names if not name.startswith(_ALSO))
    for name in unknown:
        near = difflib.get_close_matches(name, names, n=1)
        mend = f"Did you mean {near[0]}?" if near else "Remove it; docs/settings.md has all."
        yield warning("environment", f"{name} is set, and no setting of that name exists", mend)
    if not unknown:
        yield ok("environment", f"{len(given)} settings come from the environment")


def state_folder(settings: Settings) -> Iterator[Finding]:
    """It is there, for its owner alone, and has room."""
    state = settings.state
    if not state.is_dir():
        mend = "`graphwright up` makes it; --state or GRAPHWRIGHT_STATE names another."
        yield warning("state folder", f"there is no folder {state}", mend)
        return
    # They may pass through: as root, the embedded PostgreSQL is another user's.
    if state.stat().st_mode & _OTHERS & ~(stat.S_IXGRP | stat.S_IXOTH):
        yield warning("state folder", f"others can look into {state}", f"chmod 700 {state}")
    if not os.access(state, os.W_OK | os.X_OK):
        who = "Run as the user that it belongs to, or give it to this one."
        yield wrong("state folder", f"{state} cannot be written to", who)
        return
    free = shutil.disk_usage(state).free
    if free < _DISK_BYTES:
        mend = "Make room: PostgreSQL stops when the disk is full."
        yield warning("state folder", f"only {free // 2**20} MiB are free in {state}", mend)
    else:
        yield ok("state folder", f"{state}, {free // 2**30} GiB free")


def signing_key(settings: Settings) -> Iterator[Finding]:
    """The key of our tokens is secret, and long enough."""
    path = settings.state / "signing.key"
    if not path.exists():
        yield skipped("signing key", f"{path} is made when it is first needed")
    elif path.stat().st_mode & _OTHERS and stat.S_IMODE(path.stat().st_mode) != _MOUNTED:
        mend = f"chmod 600 {path}, or remove it: whoever has read it can make tokens."
        yield wrong("signing key", f"others can read {path}", mend)
    elif len(path.read_bytes().strip()) < _KEY_BYTES:
        mend = "Remove it: another one is made, and all tokens end."
        yield wrong("signing key", f"{path} holds less than {_KEY_BYTES} bytes", mend)
    else:
        yield ok("signing key", str(path))


def ports(settings: Settings) -> Iterator[Finding]:
    """Where no stack runs: its ports are free."""
    if supervisor_pid(settings.state) is not None:
        yield ok("ports", "the stack of this state folder holds them")
        return
    if settings.database_url:
        yield skipped("ports", "no stack of this state folder runs")
        return
    wanted = {
        "api": settings.api_port,
        "hooks": settings.hooks_port,
        "code": settings.code_port,
        "dagster": settings.dagster_port,
    }
    busy = {name: port for name, port in wanted.items() if port and _answers(port)}
    for name, port in busy.items():
        mend = f"`graphwright up` takes the next free one; GRAPHWRIGHT_{name.upper()}_PORT sets it."
        yield warning("ports", f"something listens on port {port}, which is for {name}", mend)
    if not busy:
        yield ok("ports", f"{', '.join(str(port) for port in wanted.values())} are free")


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
