"""``graphwright secret`` against a running stack."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forking
from tests.graphwright.conftest import Stack

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]

HUSH = "hush-hush-5c1e"


def run(
    stack: Stack, *arguments: str, given: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return forking.run_bytes(["secret", *arguments], {**stack.environment, **environment}, given)


def test_a_secret_is_set_from_standard_input_listed_and_deleted(stack: Stack) -> None:
    said = run(stack, "set", "key", given=f"{HUSH}\n".encode())
    assert said.returncode == 0, said.stderr
    secret = json.loads(said.stdout)
    assert (secret["name"], secret["version"]) == ("key", 1)
    again = run(stack, "set", "key", given=HUSH.encode())  # the newline was not part of it
    assert json.loads(again.stdout) == secret
    more = run(stack, "set", "key", "--keep-previous-seconds", "60", given=f"{HUSH}\n\n".encode())
    assert json.loads(more.stdout)["version"] == 2
    assert json.loads(more.stdout)["previous_until"]
    windows = run(stack, "set", "key", given=f"{HUSH}\n\r\n".encode())
    assert json.loads(windows.stdout)["version"] == 2
    listed = run(stack, "list")
    assert [json.loads(line)["name"] for line in listed.stdout.splitlines()] == ["key"]
    assert run(stack, "delete", "key").returncode == 0
    gone = run(stack, "delete", "key")
    assert (gone.returncode, gone.stdout) == (1, b"")
    for each in (said, again, more, windows, listed, gone):
        assert b"hush" not in each.stdout + each.stderr


def test_faults_exit_with_2_and_do_not_repeat_the_value(stack: Stack) -> None:
    for name, given in (("key", b""), ("key", b"\n"), ("key", b"hush\xff"), ("a-b", b"hush")):
        said = run(stack, "set", name, given=given)
        assert (said.returncode, said.stdout) == (2, b""), said.stderr
        assert b"hush" not in said.stderr
    as_argument = run(stack, "set", "key", HUSH)
    assert as_argument.returncode == 2
    assert run(stack, "list").stdout == b""


def test_a_terminal_is_asked_and_does_not_show_the_value(stack: Stack) -> None:
    command = [sys.executable, "-m", "graphwright", "secret", "set", "typed"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], command, stack.environment)
    shown = b""
    while b"Value of typed: " not in shown:
        shown += os.read(terminal, 1024)
    os.write(terminal, f"{HUSH}\n".encode())
    while chunk := _read(terminal):
        shown += chunk
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown
    assert b"typed" in shown.partition(b"Value of typed: ")[2]
    assert HUSH.encode() not in shown
    same = run(stack, "set", "typed", given=HUSH.encode())
    assert json.loads(same.stdout)["version"] == 1
    assert run(stack, "delete", "typed").returncode == 0


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1024)
    except OSError:  # Linux's way to say that the other side has closed it
        return b""


def test_the_master_key_is_rotated_beside_a_running_api(stack: Stack) -> None:
    key_file = stack.state / "master.key"
    run(stack, "set", "key", given=HUSH.encode())
    before = key_file.read_text("ascii")
    said = run(stack, "rotate-master-key")
    assert said.returncode == 0, said.stderr
    done = json.loads(said.stdout)
    assert done["rewrapped"] >= 1  # other tests of the stack have tenants with secrets too
    assert done["retired"]
    after = key_file.read_text("ascii")
    assert after.split()[0] == done["master_key"] != before.split()[0]
    assert after.split()[1].encode() not in said.stdout + said.stderr
    changed = run(stack, "set", "key", given=b"other")
    assert json.loads(changed.stdout)["version"] == 2
    key_file.chmod(0o400)
    refused = run(stack, "rotate-master-key")
    key_file.chmod(0o600)
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert b"openssl rand" in refused.stderr
    assert key_file.read_text("ascii") == after
    run(stack, "delete", "key")


def test_settings_that_name_no_master_key_exit_with_2(stack: Stack, tmp_path: Path) -> None:
    said = run(stack, "rotate-master-key", GRAPHWRIGHT_MASTER_KEY_FILE="awskms://k:hush@x")
    assert said.returncode == 2
    assert b"GRAPHWRIGHT_MASTER_KEY_FILE" in said.stderr
    assert b"hush" not in said.stderr
    nowhere = str(tmp_path)
    assert run(stack, "rotate-master-key", GRAPHWRIGHT_STATE=nowhere).returncode == 3
