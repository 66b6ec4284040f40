"""What is particular to one kind of object store, and the URLs that name them."""

import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from foundation.object_store import ObjectMissing, ObjectStoreAway, check_url, object_store
from foundation.object_store.folder import FolderStore
from foundation.settings import Settings
from tests.s3 import BUCKET, CREDENTIALS, fake_s3

KEY = "outputs/acme/run/one/a"


def test_files_and_folders_are_for_their_user_alone(tmp_path: Path) -> None:
    FolderStore(tmp_path / "objects").put(KEY, b"secret")
    made = [tmp_path / "objects", *(tmp_path / "objects").rglob("*")]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in made}
    assert modes.pop("a") == 0o600
    assert len(modes) == 5
    assert set(modes.values()) == {0o700}


def test_deleting_leaves_no_empty_folder(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "objects")
    store.put(KEY, b"1")
    store.put("outputs/acme/other/one/a", b"1")
    store.delete([KEY])
    assert not (tmp_path / "objects" / "outputs" / "acme" / "run").exists()
    store.delete(["outputs/acme/other/one/a"])
    assert list((tmp_path / "objects").iterdir()) == []


def test_writing_and_deleting_beside_each_other(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)

    def churn(name: int) -> None:
        key = f"outputs/acme/run/{name}/a"
        for _ in range(50):
            store.put(key, b"1")
            assert store.get(key) == b"1"
            store.delete([key])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(churn, range(4)))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_listed_and_can_be_deleted(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put(KEY, b"1")
    (tmp_path / f"{KEY}x.part").write_bytes(b"unfin")
    assert set(store.keys("outputs")) == {KEY, f"{KEY}x.part"}
    store.delete(list(store.keys("outputs")))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file in the way")
    store = FolderStore(tmp_path)
    with pytest.raises(ObjectStoreAway, match="cannot be used") as failure:
        store.put(KEY, b"1")
    assert str(tmp_path) in failure.value.hint
    assert [path.name for path in tmp_path.rglob("*")] == ["outputs"]


def test_a_folder_that_is_away_has_lost_nothing(tmp_path: Path) -> None:
    with pytest.raises(ObjectStoreAway):
        FolderStore(tmp_path / "not mounted").get(KEY)


@pytest.mark.parametrize("key", ["../a", "/a", "a//b", "a/./b", "a/../../b", ""])
def test_no_key_leads_out_of_the_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        FolderStore(tmp_path / "objects").put(key, b"1")


def test_a_bucket_that_is_away_is_told_from_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in CREDENTIALS.items():
        monkeypatch.setenv(name, text)
    with fake_s3() as server:
        store = object_store(server.url("here"))
        store.put(KEY, b"1")
        other = object_store(server.url("here").replace(BUCKET, "no-such-bucket"))
        for work in (lambda: other.put(KEY, b"1"), lambda: other.get(KEY)):
            with pytest.raises(ObjectStoreAway, match="NoSuchBucket"):
                work()
        other.close()
        beside = object_store(server.url("there"))
        with pytest.raises(ObjectMissing):
            beside.get(KEY)
        beside.close()
        server.stop()
        for work in (
            lambda: store.put(KEY, b"1"),
            lambda: store.get(KEY),
            lambda: store.delete([KEY]),
            lambda: list(store.keys("outputs")),
        ):
            with pytest.raises(ObjectStoreAway, match="Could not connect"):
                work()
        store.close()


@pytest.mark.parametrize(
    "url",
    [
        "file:///srv/objects",
        "s3://bucket",
        "s3://bucket/a/b?endpoint=https://minio.example:9000&region=eu-central-1",
    ],
)
def test_urls_of_stores(url: str) -> None:
    assert check_url(url).scheme == url.partition(":")[0]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "named as `file:///folder` or `s3://"),
        ("/srv/objects", "named as `file:///folder` or `s3://"),
        ("https://bucket.example", "named as `file:///folder` or `s3://"),
        ("file://srv/objects", "by its absolute path"),
        ("file:objects", "by its absolute path"),
        ("file:///srv?mode=0700", "by its absolute path"),
        ("file:///srv#1", "no `#`"),
        ("s3:///prefix", "a bucket is named"),
        ("s3://minio.example:9000/bucket", "a bucket is named"),
        ("s3://bucket?endpoint=minio.example", "begins with http"),
        ("s3://bucket?endpoint=", "not empty"),
        ("s3://bucket?region=a&region=b", "given once"),
        ("s3://bucket?acl=public", "not ['acl']"),
    ],
)
def test_faults_of_urls(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        object_store(url)


@pytest.mark.parametrize(
    "url", ["s3://key:hush@bucket/x", "s3://bucket?endpoint=http://key:hush@minio.example"]
)
def test_a_url_with_credentials_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="never from the URL") as fault:
        object_store(url)
    assert "hush" not in str(fault.value)


def test_the_setting_names_a_store_or_is_refused(tmp_path: Path) -> None:
    assert Settings(state=tmp_path).objects_url == (tmp_path / "objects").as_uri()
    assert Settings(object_store="s3://bucket").objects_url == "s3://bucket"
    with pytest.raises(ValidationError, match="named as `file:///folder`"):
        Settings(object_store="/srv/objects")
