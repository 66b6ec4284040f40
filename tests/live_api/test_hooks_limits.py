"""The webhook receiver over its limits, and without what it stands on."""

import base64
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from foundation.settings import Settings
from graphwright.embedded import EmbeddedPostgres
from tests import services
from tests.live_api.receiving import add_trigger, deliveries, queued, receiving, set_secret
from tests.live_api.test_hooks import BODY, Hook
from tests.sensors import signing
from tests.sensors.signing import Signed


@pytest.fixture
def url(settings: Settings) -> Generator[str]:
    with receiving(settings) as url:
        yield url


@pytest.fixture
def client() -> Generator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


@pytest.fixture
def hook(settings: Settings, client: httpx.Client, url: str) -> Hook:
    return Hook(settings, client, url)


def test_over_the_rate(settings: Settings, client: httpx.Client) -> None:
    busy, other = add_trigger(settings, "none"), add_trigger(settings, "none")
    with receiving(settings.model_copy(update={"hooks_per_minute": 3})) as url:
        answers = [client.post(f"{url}/{busy}", json={"n": n}) for n in range(5)]
        assert [each.status_code for each in answers] == [202, 202, 202, 429, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert client.post(f"{url}/{other}", json={}).status_code == 202
    assert len(deliveries(settings)) == 4


def test_refused_calls_do_not_fill_the_inbox_and_shut_nobody_else_out(
    settings: Settings, client: httpx.Client, url: str
) -> None:
    set_secret(settings, "s3cret")
    attacked, other = add_trigger(settings, "github"), add_trigger(settings, "github")
    good = signing.github(BODY)
    forged = good.but(body=b"{}")

    def status(address: str, call: Signed) -> int:
        return client.post(f"{url}/{address}", content=call.body, headers=call.headers).status_code

    assert [status(attacked, forged) for _ in range(70)] == [401] * 60 + [429] * 10
    assert status(attacked, good) == 429  # its guesses are not looked at any more
    assert status(other, good) == 202
    assert len(deliveries(settings)) == 6


def test_who_asks_for_too_many_addresses_shuts_nobody_out(
    settings: Settings, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another tenant's webhook may be behind the same client, such as GitHub."""
    monkeypatch.setattr("live_api.hooks._UNKNOWN_A_MINUTE", 20)
    monkeypatch.setattr("sensors.addresses._FRESH_SECONDS", 600.0)
    unused = add_trigger(settings, "none")
    with receiving(settings) as url:
        answers = [client.post(f"{url}/{n:032x}").status_code for n in range(30)]
        assert answers == [404] * 30
        assert client.post(f"{url}/{unused}", json={}).status_code == 202
        with ThreadPoolExecutor(1) as thread, _no_lookup(settings):
            waiting = thread.submit(client.post, f"{url}/{'e' * 32}")
            while _waiters(settings) < 1:
                assert not waiting.done()
            # It is served by one lookup at a time, and without any where one was made just now.
            busy = client.post(f"{url}/{'f' * 32}")
            assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
            assert client.post(f"{url}/{29:032x}").status_code == 404
            assert client.post(f"{url}/{unused}", json={"n": 2}).status_code == 202
        assert waiting.result().status_code == 404


def test_calls_of_a_disabled_webhook_count_against_nobody(
    settings: Settings, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("live_api.hooks._UNKNOWN_A_MINUTE", 2)
    monkeypatch.setattr("sensors.addresses._FRESH_SECONDS", 0.0)
    disabled = add_trigger(settings, "none")
    with psycopg.connect(settings.database_url) as connection:
        connection.execute("UPDATE graphwright.triggers SET enabled = false")
    with receiving(settings) as url:
        assert [client.post(f"{url}/{disabled}").status_code for _ in range(5)] == [404] * 5
        with ThreadPoolExecutor(2) as threads, _no_lookup(settings):
            calls = [threads.submit(client.post, f"{url}/{disabled}") for _ in range(2)]
            while _waiters(settings) < 2:
                assert not any(call.done() for call in calls)
        assert [call.result().status_code for call in calls] == [404] * 2


@contextmanager
def _no_lookup(settings: Settings) -> Generator[None]:
    """Whoever looks an address up within the block waits for its end."""
    with psycopg.connect(settings.database_url) as connection:
        connection.execute("LOCK TABLE graphwright.webhook_addresses")
        yield


def _waiters(settings: Settings) -> int:
    with psycopg.connect(settings.database_url) as connection:
        return connection.execute(
            "SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).rowcount


def test_two_receivers_at_once(hook: Hook, settings: Settings, url: str) -> None:
    call = signing.github(BODY)
    with receiving(settings) as other:
        first = hook.send(call)
        assert hook.send(call, at=other).json() == {**first.json(), "duplicate": True}
    assert len(deliveries(settings)) == queued(settings) == 1


def test_the_database_away_and_back(tmp_path: Path, client: httpx.Client) -> None:
    postgres = EmbeddedPostgres(tmp_path)
    services.create_tables(postgres.start())
    settings = Settings(state=tmp_path / "state", database_url=postgres.url)
    try:
        address = add_trigger(settings, "none")
        with receiving(settings) as url:
            assert client.post(f"{url}/{address}", json={"n": 1}).status_code == 202
            assert client.get(f"{url}/../readyz").json() == {"status": "ready"}
            postgres.stop()
            for path in (f"hooks/{address}", f"hooks/{'0' * 32}"):
                away = client.post(f"{url}/../{path}", json={"n": 2})
                assert (away.status_code, away.headers["retry-after"]) == (503, "5")
                assert away.json()["detail"] == "Try again in a moment."
            ready = client.get(f"{url}/../readyz")
            assert (ready.status_code, ready.json()["detail"]) == (503, "Try again in a moment.")
            assert client.get(f"{url}/../healthz").json() == {"status": "ok"}
            postgres.start()
            # As a sender does: the pool takes its time between attempts to connect.
            while (answer := client.post(f"{url}/{address}", json={"n": 2})).status_code == 503:
                pass
            assert answer.status_code == 202
            assert len(deliveries(settings)) == 2
    finally:
        postgres.stop()


def test_the_masterkey_lost(settings: Settings, client: httpx.Client) -> None:
    set_secret(settings, "s3cret")
    address = add_trigger(settings, "github")
    for path in settings.state.glob("master.key*"):
        path.write_bytes(base64.b64encode(b"another key of 32 bytes, no more"))
    call = signing.github(BODY)
    with receiving(settings) as url:
        answer = client.post(f"{url}/{address}", content=call.body, headers=call.headers)
    assert (answer.status_code, answer.json()["detail"]) == (503, "Try again in a moment.")


def test_a_fault_of_ours_says_nothing_of_itself(
    settings: Settings, client: httpx.Client, url: str
) -> None:
    address = add_trigger(settings, "none")
    with psycopg.connect(settings.database_url) as connection:
        connection.execute("ALTER TABLE graphwright.delivery_queue RENAME TO gone")
    answer = client.post(f"{url}/{address}", json={})
    assert (answer.status_code, answer.json()["detail"]) == (
        500, "Something went wrong on our side.",
    )  # fmt: skip
    assert "gone" not in answer.text
    assert "Traceback" not in answer.text
