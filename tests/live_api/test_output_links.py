"""Large outputs of nodes, from a bucket: through the API, or by a link to the bucket."""

from collections.abc import Generator

import httpx
import pytest

from foundation.database import connect
from foundation.object_store import object_store
from foundation.settings import Settings
from tests.dynamic_jobs.run_rows import RunRows
from tests.live_api.conftest import ClientFor
from tests.s3 import CREDENTIALS, FakeS3, fake_s3

TEXT = '{"rows":[1e400,2.0,"é"]}'
LARGE = (
    "INSERT INTO graphwright.node_outputs (tenant, run_id, node, object_key, bytes)"
    " VALUES (%s, %s, 'a', %s, %s)"
)
SMALL = (
    "INSERT INTO graphwright.node_outputs (tenant, run_id, node, value) VALUES (%s, %s, 'b', '1')"
)


@pytest.fixture(scope="module")
def server() -> Generator[FakeS3]:
    with fake_s3() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def settings(
    request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    if request.param == "folder":
        return settings
    for name, text in CREDENTIALS.items():
        monkeypatch.setenv(name, text)
    url = request.getfixturevalue("server").url(settings.state.name)
    return settings.model_copy(update={"object_store": url})


@pytest.fixture
def path(settings: Settings) -> str:
    """Of the large output; ``/b/`` in place of ``/a/`` is a small one."""
    rows = RunRows(settings.database_url)
    key = f"outputs/{rows.tenant}/{rows.run_id}/a/1"
    store = object_store(settings.objects_url)
    store.put(key, TEXT.encode())
    store.close()
    with connect(settings.database_url) as connection:
        connection.execute(LARGE, [rows.tenant, rows.run_id, key, len(TEXT.encode())])
        connection.execute(SMALL, [rows.tenant, rows.run_id])
    return f"/api/v1/runs/{rows.run_id}/nodes/a/output"


def test_a_large_output_comes_through_the_api_unless_a_link_is_asked_for(
    client: httpx.Client, path: str, settings: Settings
) -> None:
    assert client.get(path).text == TEXT
    assert client.get(f"{path}?redirect=false").text == TEXT
    answer = client.get(f"{path}?redirect=true")
    if not settings.object_store:
        assert (answer.status_code, answer.text) == (200, TEXT), "a folder has no links"
        return
    assert answer.status_code == 307
    assert answer.headers["cache-control"] == "no-store"
    assert "Expires=60&" in answer.headers["location"]
    found = httpx.get(answer.headers["location"], timeout=30)  # without our token
    assert (found.text, found.headers["content-type"]) == (TEXT, "application/json")


def test_what_has_no_link(client: httpx.Client, client_for: ClientFor, path: str) -> None:
    assert client.get(path.replace("/a/", "/b/") + "?redirect=true").text == "1"
    assert client.get(path.replace("/a/", "/c/") + "?redirect=true").status_code == 404
    assert client_for("globex").get(f"{path}?redirect=true").status_code == 404
    assert client.get(f"{path}?redirect=perhaps").status_code == 422
