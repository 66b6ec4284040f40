"""What is particular to one kind of master key, and the settings that name them."""

import base64
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from foundation.errors import Invalid
from foundation.ids import TenantId
from foundation.secret_store import MasterKeyAway, MasterKeyFault, master_keys
from foundation.secret_store.key_file import KeyFile
from foundation.settings import Settings
from tests.kms import fake_kms
from tests.s3 import CREDENTIALS

ACME = TenantId("acme")
DATA_KEY = bytes(range(32))
LINE = f"one {base64.b64encode(DATA_KEY).decode()}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "master.key"


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_file_is_made_for_its_owner_alone(path: Path) -> None:
    assert not KeyFile(path).holds("one")
    assert not path.exists()
    current = KeyFile(path).current()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert re.fullmatch(rf"{current} [A-Za-z0-9+/]{{43}}=\n", path.read_text())
    assert [each.name for each in path.parent.iterdir()] == ["master.key"]


def test_processes_that_start_at_once_have_one_file(path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from foundation.secret_store.key_file import KeyFile\n"
        "print(KeyFile(Path(sys.argv[1])).current())"
    )
    command = [sys.executable, "-c", program, str(path)]
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, stdout=pipe, text=True) for _ in range(4)]
    said = [process.communicate()[0].strip() for process in started]
    assert set(said) == {KeyFile(path).current()}
    assert [each.name for each in path.parent.iterdir()] == ["master.key"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o604, 0o660, 0o444, 0o700])
def test_a_file_that_others_can_read_is_refused(path: Path, mode: int) -> None:
    written(path, LINE, mode)
    with pytest.raises(MasterKeyFault, match=f"mode {mode:04o}") as fault:
        KeyFile(path).wrap(ACME, DATA_KEY)
    assert "chmod 600" in fault.value.hint


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440])
def test_a_file_is_taken_as_kubernetes_mounts_it(path: Path, mode: int) -> None:
    written(path.with_name("data"), f"{LINE}\n", mode)
    path.symlink_to("data")
    keys = KeyFile(path)
    assert keys.unwrap(ACME, keys.wrap(ACME, DATA_KEY)) == DATA_KEY


@pytest.mark.parametrize("mode", [0o400, 0o440])
def test_a_mounted_file_is_its_keepers_to_change(path: Path, mode: int) -> None:
    other = LINE.replace("one", "two")
    written(path, f"{other}\n{LINE}\n", mode)
    keys = KeyFile(path)
    with pytest.raises(MasterKeyFault, match="read-only") as fault:
        keys.renew()
    assert "openssl rand" in fault.value.hint
    assert not keys.retire()
    path.unlink()
    written(path, f"{other}\n", mode)
    assert keys.retire()


def test_a_symbolic_link_leads_to_the_changed_file(path: Path) -> None:
    data = written(path.with_name("data"), LINE)
    path.symlink_to("data")
    keys = KeyFile(path)
    keys.renew()
    assert path.is_symlink()
    assert len(data.read_text().splitlines()) == 2
    assert keys.retire()
    assert data.read_text().split()[0] == keys.current() != "one"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change for others")
def test_the_file_stays_its_owners(path: Path) -> None:
    written(path, LINE)
    os.chown(path, 1234, 1234)
    KeyFile(path).renew()
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1234)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("hush-hush", "line 1 "),
        (f"{LINE}\nhush-hush", "line 2 "),
        (f"{LINE}\n{LINE}", "line 2 "),
        ("one aHVzaC1odXNo", "line 1 "),
        ("one hush!hush", "line 1 "),
        (LINE.removeprefix("one "), "line 1 "),
        ("one \x85hüsh", "line 1 "),
    ],
)
def test_faults_of_the_file_are_told_without_its_text(path: Path, text: str, told: str) -> None:
    written(path, text)
    with pytest.raises(MasterKeyFault, match=told) as fault:
        KeyFile(path).wrap(ACME, DATA_KEY)
    assert not re.search("hush|aHV|AAEC", f"{fault.value} {fault.value.hint}")


def test_a_file_that_cannot_be_made_says_so(path: Path) -> None:
    path.parent.write_text("a file in the way")
    with pytest.raises(MasterKeyFault, match="cannot be made"):
        KeyFile(path).wrap(ACME, DATA_KEY)
    with pytest.raises(MasterKeyFault, match="cannot be read"):
        KeyFile(path).holds("one")


def test_a_lost_line_says_which(path: Path) -> None:
    keys = KeyFile(path)
    wrapped = keys.wrap(ACME, DATA_KEY)
    written(path, LINE)
    with pytest.raises(MasterKeyFault, match=wrapped.master_key) as fault:
        KeyFile(path).unwrap(ACME, wrapped)
    assert "copy" in fault.value.hint


def test_kms_that_refuses_is_told_from_kms_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in CREDENTIALS.items():
        monkeypatch.setenv(name, text)
    with fake_kms() as kms:
        arn = kms.make_key()
        keys = master_keys(Settings(master_key_file=kms.url(arn)))
        wrapped = keys.wrap(ACME, DATA_KEY)
        assert wrapped.master_key == arn
        absent = master_keys(Settings(master_key_file=kms.url("alias/absent")))
        with pytest.raises(MasterKeyFault, match="KMS refuses") as fault:
            absent.wrap(ACME, DATA_KEY)
        assert "alias/absent" in fault.value.hint
        kms.server.stop()
        for work in (lambda: keys.wrap(ACME, DATA_KEY), lambda: keys.unwrap(ACME, wrapped)):
            with pytest.raises(MasterKeyAway, match="cannot be asked"):
                work()
        keys.close()
        absent.close()


def test_the_setting_names_a_file(tmp_path: Path) -> None:
    by_default = Settings(state=tmp_path / "state")
    named = Settings(state=tmp_path, master_key_file=str(tmp_path / "other.key"))
    for settings, path in (
        (by_default, tmp_path / "state" / "master.key"),
        (named, tmp_path / "other.key"),
    ):
        master_keys(settings).current()
        assert path.exists()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("awskms://", "named as `awskms://ARN`"),
        ("awskms:alias/x", "named as `awskms://ARN`"),
        ("awskms://alias/x#1", "named as `awskms://ARN`"),
        ("awskms://alias/x?endpoint=kms.example", "begins with http"),
        ("awskms://alias/x?endpoint=", "not empty"),
        ("awskms://alias/x?region=a&region=b", "given once"),
        ("awskms://alias/x?profile=a", "not ['profile']"),
        ("awskms://key:hush@alias/x", "never from the URL"),
        ("awskms://alias/x?endpoint=http://key:hush@kms.example", "never from the URL"),
    ],
)
def test_faults_of_urls(url: str, told: str) -> None:
    with pytest.raises(Invalid) as fault:
        master_keys(Settings(master_key_file=url))
    assert "GRAPHWRIGHT_MASTER_KEY_FILE: " in str(fault.value)
    assert told in str(fault.value)
    assert "hush" not in str(fault.value)
