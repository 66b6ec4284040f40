"""The operating-system user as which embedded PostgreSQL runs when we are root.

PostgreSQL refuses to run as root, so there it gets a user of its own, who owns its data and can do
nothing else. That user must be able to pass through the folders above its data and its programs,
which root often keeps closed (``/root``, anything from ``mktemp -d``). We open each such folder for
this one user, with an access-control entry that allows passing and not listing, and touch no
permission of anybody else.
"""

import os
import pwd
import stat
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from foundation.errors import GraphwrightError

NAME = "graphwright"

_ACL = "system.posix_acl_access"
# linux/posix_acl_xattr.h: a version, then (tag, permissions, id) per entry, ordered by tag and id.
_ACL_VERSION, _ACL_HEAD, _ACL_ENTRY = 2, struct.Struct("<I"), struct.Struct("<HHI")
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NO_ID = 0xFFFF_FFFF
_PASS = 0o1


class ServerUserError(GraphwrightError):
    """There is no user as which PostgreSQL could run here."""

    code = "no_server_user"


@dataclass(frozen=True, slots=True)
class ServerUser:
    """Somebody who is not root."""

    name: str
    uid: int
    gid: int


def server_user() -> ServerUser | None:
    """The user to run PostgreSQL as, made where it is missing; None for "whoever we are".

    Raises ServerUserError when we are root and the user can neither be found nor made.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(NAME)
    except KeyError:
        entry = _create()
    return ServerUser(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _create() -> pwd.struct_passwd:
    command = ["useradd", "--system", "--user-group", "--no-create-home"]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            [*command, "--shell", "/usr/sbin/nologin", NAME],
            capture_output=True,
            text=True,
            check=False,
        )
        cause = done.stderr.strip()
    except FileNotFoundError:
        cause = "there is no useradd"
    try:
        return pwd.getpwnam(NAME)  # made by us, or by another process at the same moment
    except KeyError:
        raise ServerUserError(
            f"PostgreSQL does not run as root, and the user {NAME!r} could not be made: {cause}",
            hint=f"Make a system user named {NAME}, or start as a user other than root.",
        ) from None


def let_through(folder: Path, user: ServerUser) -> None:
    """Let ``user`` pass through ``folder`` and every folder above it.

    Raises ServerUserError where the file system keeps no access-control lists.
    """
    for each in reversed((folder, *folder.parents)):
        status = each.stat()
        if status.st_mode & stat.S_IXOTH or status.st_uid == user.uid:
            continue
        try:
            _allow_passing(each, status.st_mode, user.uid)
        except OSError as error:
            raise ServerUserError(
                f"{user.name!r}, as whom PostgreSQL runs, cannot pass {each}: {error.strerror}",
                hint=f"Run `chmod o+x {each}`, or work in a folder that everybody may pass.",
            ) from error


def _allow_passing(folder: Path, mode: int, uid: int) -> None:
    entries = _read_acl(folder, mode)
    mask = entries.pop((_MASK, _NO_ID), 0o7)
    if entries.get((_USER, uid), 0) & mask & _PASS:
        return
    # The mask bounds all but owner and others. Applied first, a wider one opens no more.
    opened = _PASS
    for tag, who in entries:
        if tag in {_USER, _GROUP_OBJ, _GROUP}:
            entries[tag, who] &= mask
            opened |= entries[tag, who]
    entries[_USER, uid] = entries.get((_USER, uid), 0) | _PASS
    entries[_MASK, _NO_ID] = opened
    packed = [_ACL_ENTRY.pack(tag, allowed, who) for (tag, who), allowed in sorted(entries.items())]
    os.setxattr(folder, _ACL, _ACL_HEAD.pack(_ACL_VERSION) + b"".join(packed))


def _read_acl(folder: Path, mode: int) -> dict[tuple[int, int], int]:
    if _ACL in os.listxattr(folder):
        raw = os.getxattr(folder, _ACL)[_ACL_HEAD.size :]
        return {(tag, who): allowed for tag, allowed, who in _ACL_ENTRY.iter_unpack(raw)}
    return {
        (_USER_OBJ, _NO_ID): mode >> 6 & 0o7,
        (_GROUP_OBJ, _NO_ID): mode >> 3 & 0o7,
        (_OTHER, _NO_ID): mode & 0o7,
    }
