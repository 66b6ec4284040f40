"""What every kind of master key does, by the same tests: a file, and a key of AWS KMS."""

import secrets
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from foundation.ids import TenantId
from foundation.secret_store import MasterKeyFault, MasterKeys, Wrapped, master_keys
from foundation.settings import Settings
from tests.kms import FakeKms, fake_kms
from tests.s3 import CREDENTIALS

ACME, OTHER = TenantId("acme"), TenantId("other")
DATA_KEY = secrets.token_bytes(32)


@dataclass(frozen=True)
class Kept:
    """A kind of master key, as processes open it, and what gives it another current key."""

    open: Callable[[], MasterKeys]
    change: Callable[[], None]


@pytest.fixture(scope="module")
def server() -> Generator[FakeKms]:
    with fake_kms() as server:
        yield server


@pytest.fixture(params=["file", "kms"])
def kept(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[Kept]:
    opened: list[MasterKeys] = []

    def opener(setting: str) -> Callable[[], MasterKeys]:
        def open_keys() -> MasterKeys:
            opened.append(master_keys(Settings(state=tmp_path, master_key_file=setting)))
            return opened[-1]

        return open_keys

    if request.param == "file":
        open_keys = opener("")
        yield Kept(open_keys, lambda: open_keys().renew())
    else:
        for name, text in CREDENTIALS.items():
            monkeypatch.setenv(name, text)
        kms: FakeKms = request.getfixturevalue("server")
        alias = f"alias/{secrets.token_hex(4)}"
        kms.client.create_alias(AliasName=alias, TargetKeyId=kms.make_key())

        def move_alias() -> None:
            kms.client.update_alias(AliasName=alias, TargetKeyId=kms.make_key())

        yield Kept(opener(kms.url(alias)), move_alias)
    for each in opened:
        each.close()


@pytest.fixture
def keys(kept: Kept) -> MasterKeys:
    return kept.open()


def test_a_data_key_comes_back_in_another_process(kept: Kept, keys: MasterKeys) -> None:
    wrapped = keys.wrap(ACME, DATA_KEY)
    assert DATA_KEY not in wrapped.data
    assert kept.open().unwrap(ACME, wrapped) == DATA_KEY


def test_what_is_wrapped_twice_is_not_the_same(keys: MasterKeys) -> None:
    assert keys.wrap(ACME, DATA_KEY).data != keys.wrap(ACME, DATA_KEY).data


def test_the_data_key_of_another_tenant_is_none(keys: MasterKeys) -> None:
    with pytest.raises(MasterKeyFault):
        keys.unwrap(OTHER, keys.wrap(ACME, DATA_KEY))


def test_a_changed_data_key_is_none(keys: MasterKeys) -> None:
    wrapped = keys.wrap(ACME, DATA_KEY)
    flipped = bytes([*wrapped.data[:-1], wrapped.data[-1] ^ 1])
    for data in (flipped, wrapped.data[:-1], wrapped.data[:5], b"x"):
        with pytest.raises(MasterKeyFault) as fault:
            keys.unwrap(ACME, replace(wrapped, data=data))
        assert fault.value.hint


def test_a_data_key_says_which_master_key_wraps_it(keys: MasterKeys) -> None:
    current = keys.current()
    assert keys.wrap(ACME, DATA_KEY).master_key == current
    assert keys.holds(current)
    assert not keys.holds("no-such-key")
    with pytest.raises(MasterKeyFault):
        keys.unwrap(ACME, Wrapped("no-such-key", keys.wrap(ACME, DATA_KEY).data))


def test_a_new_master_key_is_used_by_processes_that_run_already(
    kept: Kept, keys: MasterKeys
) -> None:
    old = keys.wrap(ACME, DATA_KEY)
    kept.change()
    new = keys.wrap(ACME, DATA_KEY)
    assert old.master_key != new.master_key == keys.current()
    for each in (keys, kept.open()):
        assert each.unwrap(ACME, old) == each.unwrap(ACME, new) == DATA_KEY


def test_a_master_key_that_came_later_is_noticed(kept: Kept, keys: MasterKeys) -> None:
    keys.current()
    kept.change()
    wrapped = kept.open().wrap(ACME, DATA_KEY)
    assert keys.holds(wrapped.master_key)
    assert keys.unwrap(ACME, wrapped) == DATA_KEY


def test_renewing_keeps_what_there_is_readable(keys: MasterKeys) -> None:
    wrapped = keys.wrap(ACME, DATA_KEY)
    keys.renew()
    assert keys.unwrap(ACME, wrapped) == DATA_KEY


def test_retiring_keeps_the_current_one(kept: Kept, keys: MasterKeys) -> None:
    keys.wrap(ACME, DATA_KEY)
    kept.change()
    wrapped = keys.wrap(ACME, DATA_KEY)
    assert keys.retire()
    assert kept.open().current() == wrapped.master_key
    assert kept.open().unwrap(ACME, wrapped) == DATA_KEY


def test_many_that_start_at_once_agree(kept: Kept) -> None:
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(lambda: kept.open().wrap(ACME, DATA_KEY)) for _ in range(8)]
        wrapped = [each.result() for each in asked]
    assert len({each.master_key for each in wrapped}) == 1
    assert {kept.open().unwrap(ACME, each) for each in wrapped} == {DATA_KEY}
