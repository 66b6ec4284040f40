"""What every object store does, by the same tests: a folder, and a bucket of S3."""

import secrets
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from foundation.object_store import ObjectMissing, ObjectStore, object_store
from foundation.object_store.folder import FolderStore
from tests.s3 import CREDENTIALS, FakeS3, fake_s3

KEY = "outputs/acme/run/one/a"


@pytest.fixture(scope="module")
def server() -> Generator[FakeS3]:
    with fake_s3() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[ObjectStore]:
    url = (tmp_path / "in a folder").as_uri()
    if request.param == "s3":
        for name, text in CREDENTIALS.items():
            monkeypatch.setenv(name, text)
        url = request.getfixturevalue("server").url(f"some%20where/{secrets.token_hex(4)}")
    opened = object_store(url)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00\xff", secrets.token_bytes(2 * 2**20)],
    ids=["none", "two", "many"],  # the same in each test process
)
def test_a_value_comes_back_byte_for_byte(store: ObjectStore, data: bytes) -> None:
    store.put(KEY, data)
    assert store.get(KEY) == data


def test_an_object_that_is_not_there_is_told_from_a_store_that_is_away(store: ObjectStore) -> None:
    store.put(KEY, b"1")
    with pytest.raises(ObjectMissing, match="outputs/acme/run/one/b"):
        store.get("outputs/acme/run/one/b")


def test_keys_are_listed_by_whole_names(store: ObjectStore) -> None:
    keys = [f"outputs/{name}" for name in ("a/run/one/1", "a/run/two/2", "a/other/one/3", "ab/4")]
    for key in keys:
        store.put(key, b"1")
    assert set(store.keys("outputs")) == set(keys)
    assert set(store.keys("outputs/a")) == set(keys[:3])
    assert set(store.keys("outputs/a/run")) == set(keys[:2])
    assert list(store.keys("outputs/c")) == []


def test_deleted_objects_are_gone_and_others_stay(store: ObjectStore) -> None:
    other = "outputs/acme/other/one/a"
    store.put(KEY, b"1")
    store.put(other, b"2")
    store.delete([KEY, "outputs/acme/run/one/never"])
    store.delete([KEY])
    assert list(store.keys("outputs")) == [other]
    assert store.get(other) == b"2"
    store.put(KEY, b"3")
    assert store.get(KEY) == b"3"


def test_many_objects_are_listed_and_deleted(store: ObjectStore) -> None:
    keys = [f"outputs/acme/run/{n}" for n in range(1_001)]  # one more than S3 takes at once
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(store.put, keys, [b"1"] * len(keys)))
    assert sorted(store.keys("outputs/acme")) == sorted(keys)
    store.delete(keys)
    assert list(store.keys("outputs/acme")) == []


def test_nothing_is_deleted_without_keys(store: ObjectStore) -> None:
    store.put(KEY, b"1")
    store.delete([])
    assert store.get(KEY) == b"1"


def test_a_link_opens_the_value_where_there_are_links(store: ObjectStore) -> None:
    store.put(KEY, b"\x00\xff")
    link = store.link(KEY, 60, "text/plain")
    if link is None:
        assert isinstance(store, FolderStore)
    else:
        assert httpx.get(link, timeout=60).content == b"\x00\xff"
