"""What only a server that checks signatures can show. Skips where there is no Swift."""

import time
from collections.abc import Generator

import httpx
import pytest

from foundation.object_store import ObjectMissing, ObjectStore, ObjectStoreAway, object_store
from tests.swift import CREDENTIALS, swift, url

pytestmark = pytest.mark.xdist_group("swift")

KEY = "outputs/acme/run/one/a"
PREFIX = "some%20where"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    with swift(tmp_path_factory.mktemp("swift")) as endpoint:
        yield endpoint


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Generator[ObjectStore]:
    for name, text in CREDENTIALS.items():
        monkeypatch.setenv(name, text)
    opened = object_store(url(endpoint, PREFIX))
    yield opened
    opened.close()


def test_requests_are_signed_as_the_server_demands(store: ObjectStore) -> None:
    store.put(KEY, b"\x00\xff")
    assert store.get(KEY) == b"\x00\xff"
    assert list(store.keys("outputs/acme")) == [KEY]
    store.delete([KEY, KEY + "b"])  # whose body this server wants an MD5 of
    with pytest.raises(ObjectMissing):
        store.get(KEY)


def test_a_wrong_secret_is_refused_and_told(
    endpoint: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(KEY, b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "guessed")
    stranger = object_store(url(endpoint, PREFIX))
    for refused in (lambda: stranger.get(KEY), lambda: stranger.put(KEY, b"2")):
        with pytest.raises(ObjectStoreAway, match="SignatureDoesNotMatch") as raised:
            refused()
        assert "guessed" not in str(raised.value)
    stranger.close()
    assert store.get(KEY) == b"1"


def get(link: str) -> httpx.Response:
    return httpx.get(link, timeout=60)


def test_a_link_opens_its_own_object_only(store: ObjectStore) -> None:
    store.put(KEY, b"mine")
    store.put(KEY + "b", b"not mine")
    link = store.link(KEY, 60, "text/plain")
    assert link is not None
    assert get(link).content == b"mine"
    assert get(link).headers["content-type"].startswith("text/plain")
    assert get(link.replace(KEY, KEY + "b")).status_code == 403
    assert get(link.replace("Expires=60", "Expires=6000")).status_code == 403
    assert httpx.put(link, content=b"changed", timeout=60).status_code == 403
    assert get(link.partition("?")[0]).status_code in (400, 403)
    assert store.get(KEY) == b"mine"


def test_a_link_ends_when_its_time_is_over(store: ObjectStore) -> None:
    store.put(KEY, b"1")
    link = store.link(KEY, 1, "text/plain")
    assert link is not None
    deadline = time.monotonic() + 60
    while (answer := get(link)).status_code == 200:
        assert time.monotonic() < deadline, "it still opens"
        time.sleep(0.1)
    assert answer.status_code == 403
    assert "expired" in answer.text
