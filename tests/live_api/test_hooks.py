"""The webhook receiver over real HTTP."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from foundation.settings import Limits, Settings
from tests.live_api.receiving import add_trigger, deliveries, queued, receiving, set_secret
from tests.sensors import signing
from tests.sensors.signing import FORM, GITHUB_PAYLOADS, JSON, SIGNERS, TIMED, TOKENS, Signed

BODY = b'{"id": "evt_1", "event_id": "Ev1", "n": 1}'


@pytest.fixture
def url(settings: Settings) -> Generator[str]:
    with receiving(settings) as url:
        yield url


@pytest.fixture
def client() -> Generator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


class Hook:
    """One webhook at a receiver."""

    def __init__(self, settings: Settings, client: httpx.Client, url: str) -> None:
        self._settings, self._client, self._url = settings, client, url
        self._addresses: dict[str, str] = {}

    def send(self, signed: Signed, query: str = "", at: str | None = None) -> httpx.Response:
        """Send a call to the webhook of its trigger, which is made on first use."""
        config = signed.trigger.model_dump_json(exclude_unset=True)
        if config not in self._addresses:
            given = json.loads(config)
            scheme = given.pop("scheme")
            del given["type"]
            if scheme != "none":
                set_secret(self._settings, signed.secret)
            self._addresses[config] = add_trigger(self._settings, scheme, **given)
        url = f"{at or self._url}/{self._addresses[config]}{query}"
        return self._client.post(url, content=signed.body, headers=signed.headers)


@pytest.fixture
def hook(settings: Settings, client: httpx.Client, url: str) -> Hook:
    return Hook(settings, client, url)


signers = pytest.mark.parametrize("sign", {**SIGNERS, **TOKENS}.values(), ids=[*SIGNERS, *TOKENS])


@signers
def test_accepted_repeated_and_forged(
    hook: Hook, settings: Settings, sign: Callable[[bytes], Signed]
) -> None:
    call = sign(BODY)
    first = hook.send(call)
    again = hook.send(call)
    (kept,) = deliveries(settings)
    assert (kept["body"], kept["verdict"], kept["tenant"]) == (BODY, "pending", "acme")
    assert queued(settings) == 1
    if call.call().headers["content-type"] == FORM["content-type"]:
        assert [(each.status_code, each.content) for each in (first, again)] == [(200, b"")] * 2
    else:
        assert (first.status_code, first.json()) == (202, {"delivery_id": str(kept["delivery_id"])})
        assert again.status_code == 200
        assert again.json() == {"delivery_id": str(kept["delivery_id"]), "duplicate": True}
    forged = call.but(body=BODY.replace(b"1}", b"2}"))
    if sign in TOKENS.values():
        forged = call.but(headers={**call.headers, **_bad_token(call)})
    _is_refused(hook.send(forged))
    _, refused = deliveries(settings)
    assert (refused["verdict"], refused["body"]) == ("refused", None)
    assert "match" in refused["reason"]
    assert queued(settings) == 1


def _bad_token(call: Signed) -> dict[str, str]:
    return {name: value.replace("t0ken", "t0kem") for name, value in call.headers.items()}


def _is_refused(answer: httpx.Response) -> None:
    """All are refused in the same words."""
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:graphwright:problem:not_proven",
        "title": "Unauthorized",
        "status": 401,
        "detail": "The call does not prove who sent it.",
        "code": "not_proven",
    }


@pytest.mark.parametrize("path", GITHUB_PAYLOADS, ids=lambda path: path.name)
def test_real_github_payload(hook: Hook, settings: Settings, path: Path) -> None:
    event = path.name.partition(".")[0]
    call = signing.github(path.read_bytes(), **{"X-GitHub-Event": event})
    answer = hook.send(call)
    if event == "ping":
        assert (answer.status_code, answer.json()) == (200, {"answer": "pong"})
        assert not deliveries(settings)
        return
    assert answer.status_code == 202
    replayed = hook.send(call.with_headers(x_github_delivery="another"))
    assert replayed.json() == {**answer.json(), "duplicate": True}
    changed = bytearray(call.body)
    changed[len(changed) // 2] ^= 1
    _is_refused(hook.send(call.but(body=bytes(changed))))
    (kept, _) = deliveries(settings)
    assert kept["body"] == path.read_bytes()
    assert kept["headers"]["x-github-event"] == event


def test_handshake_of_slack(hook: Hook, settings: Settings) -> None:
    challenge = signing.slack(b'{"type": "url_verification", "challenge": "3eZbrw1a"}')
    answer = hook.send(challenge)
    assert (answer.status_code, answer.json()) == (200, {"challenge": "3eZbrw1a"})
    _is_refused(hook.send(challenge.with_headers(x_slack_signature="v0=00")))
    assert not queued(settings)


@pytest.mark.parametrize("sign", TIMED.values(), ids=list(TIMED))
@pytest.mark.parametrize("off_by", [-400, 400])
def test_stale_and_early(
    hook: Hook, settings: Settings, sign: Callable[..., Signed], off_by: int
) -> None:
    _is_refused(hook.send(sign(BODY, at=time.time() + off_by)))
    (kept,) = deliveries(settings)
    assert "it was signed" in kept["reason"]


def test_none_takes_everybody(hook: Hook, settings: Settings) -> None:
    call = Signed(signing.trigger("none"), "", dict(JSON), b"{}")
    assert hook.send(call, "?a=1").status_code == 202
    assert hook.send(call, "?a=2").status_code == 202
    assert hook.send(call, "?a=1").json()["duplicate"]
    assert hook.send(call.but(body=b"", headers={}), "").status_code == 202
    assert len(deliveries(settings)) == 3


def test_dedupe_off_and_for_a_while(hook: Hook) -> None:
    off = Signed(signing.trigger("none", dedupe="off"), "", dict(JSON), b"{}")
    assert [hook.send(off).status_code for _ in range(3)] == [202] * 3
    hour = signing.hmac_hex(BODY, dedupe="1h")
    assert [hook.send(hour).status_code for _ in range(2)] == [202, 200]


def test_secrets_are_not_kept(hook: Hook, settings: Settings) -> None:
    call = signing.gitlab(BODY).with_headers(
        authorization="Basic c2VjcmV0", cookie="c2VjcmV0", x_api_key="c2VjcmV0", x_kept="yes"
    )
    call = call.with_headers(x_astray=call.secret)
    hook.send(call, f"?token=c2VjcmV0&a=1&b=1&b=2&c=&astray=1&astray={call.secret}")
    _is_refused(hook.send(call.with_headers(x_gitlab_token="c2VjcmV0")))
    kept, refused = deliveries(settings)
    for each in (kept, refused):
        assert "c2VjcmV0" not in str(each)
        assert "t0ken" not in str(each)
        assert each["headers"]["x-kept"] == "yes"
    assert kept["query"] == {"a": "1", "b": ["1", "2"], "c": ""}


def test_ids_are_kept_whatever_they_are_called(hook: Hook, settings: Settings) -> None:
    call = signing.hmac_hex(BODY, id_header="X-Message-Key").with_headers(
        x_message_key="m-1", idempotency_key="i-1", x_access_key="c2VjcmV0"
    )
    assert hook.send(call).status_code == 202
    (kept,) = deliveries(settings)
    assert kept["headers"]["x-message-key"] == kept["sender_id"] == "m-1"
    assert kept["headers"]["idempotency-key"] == "i-1"
    assert "c2VjcmV0" not in str(kept)


def test_rotation_of_a_secret(settings: Settings, client: httpx.Client) -> None:
    set_secret(settings, "old")
    set_secret(settings, "new", keep=60)
    address = add_trigger(settings, "github")
    with receiving(settings) as url:

        def status(secret: str, body: bytes) -> int:
            call = signing.github(body, secret=secret, **{"X-GitHub-Delivery": body.hex()})
            answer = client.post(f"{url}/{address}", content=call.body, headers=call.headers)
            return answer.status_code

        assert [status("new", b"1"), status("old", b"2"), status("older", b"3")] == [202, 202, 401]
    set_secret(settings, "newest")
    with receiving(settings) as url:
        assert [status("newest", b"4"), status("new", b"5")] == [202, 401]


def test_another_tenants_secret_of_the_same_name(
    settings: Settings, client: httpx.Client, url: str
) -> None:
    set_secret(settings, "ours", tenant="acme")
    set_secret(settings, "theirs", tenant="else")
    ours, theirs = (add_trigger(settings, "github", tenant=each) for each in ("acme", "else"))
    for address, secret, status in (
        (ours, "theirs", 401), (theirs, "ours", 401), (ours, "ours", 202), (theirs, "theirs", 202),
    ):  # fmt: skip
        call = signing.github(BODY, secret=secret)
        answer = client.post(f"{url}/{address}", content=call.body, headers=call.headers)
        assert answer.status_code == status
    assert {row["tenant"] for row in deliveries(settings) if row["verdict"] == "pending"} == {
        "acme", "else",
    }  # fmt: skip


def test_a_secret_that_is_not_set(settings: Settings, client: httpx.Client, url: str) -> None:
    call = signing.github(BODY)
    address = add_trigger(settings, "github")
    _is_refused(client.post(f"{url}/{address}", content=call.body, headers=call.headers))
    (kept,) = deliveries(settings)
    assert kept["reason"] == "the secret `key` is not set"


def test_what_is_not_there_answers_alike(
    settings: Settings, client: httpx.Client, url: str
) -> None:
    disabled = add_trigger(settings, "none")
    with psycopg.connect(settings.database_url) as connection:
        connection.execute("UPDATE graphwright.triggers SET enabled = false")
    paths = [disabled, "0" * 32, "x", "%00", "..", "a/b", "", "'--"]
    answers = [client.post(f"{url}/{path}", json={}) for path in paths]
    answers += [
        client.post(url),
        client.get(f"{url}/../api/v1/graphs"),
        client.get(f"{url}/../docs"),
    ]
    answers += [client.get(f"{url}/../openapi.json")]
    assert {(each.status_code, each.content) for each in answers} == {(404, answers[0].content)}
    assert b"There is nothing here." in answers[0].content


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_other_methods(settings: Settings, client: httpx.Client, url: str, method: str) -> None:
    for address in (add_trigger(settings, "none"), "0" * 32):
        answer = client.request(method, f"{url}/{address}")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 202),
        ("Application/JSON; charset=utf-8", 202),
        ("application/cloudevents+json", 202),
        ("application/x-www-form-urlencoded", 202),
        ("text/plain", 202),
        ("application/xml", 415),
        ("application/octet-stream", 415),
        ("multipart/form-data; boundary=x", 415),
        ("", 415),
    ],
)
def test_content_types(
    settings: Settings, client: httpx.Client, url: str, content_type: str, status: int
) -> None:
    address = add_trigger(settings, "none")
    answer = client.post(f"{url}/{address}", content=b"{}", headers={"Content-Type": content_type})
    assert answer.status_code == status


def test_compressed_is_not_taken(settings: Settings, client: httpx.Client, url: str) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}
    answer = client.post(f"{url}/{add_trigger(settings, 'none')}", content=b"{}", headers=headers)
    assert answer.status_code == 415


def test_malformed_json_is_for_the_owner_to_see(hook: Hook, settings: Settings) -> None:
    assert hook.send(signing.github(b'{"a": ')).status_code == 202
    assert deliveries(settings)[0]["verdict"] == "pending"  # dispatching it says what is wrong


@pytest.mark.parametrize("chunked", [False, True])
def test_too_large(settings: Settings, client: httpx.Client, chunked: bool) -> None:
    address = add_trigger(settings, "none")

    def body(size: int) -> Any:
        return iter([b"x" * (size // 2), b"x" * (size - size // 2)]) if chunked else b"x" * size

    with receiving(settings, Limits(max_webhook_bytes=1_000)) as url:
        for size, status in ((1_000, 202), (1_001, 413), (200_000, 413)):
            headers = {"Content-Type": "text/plain"}
            answer = client.post(f"{url}/{address}", content=body(size), headers=headers)
            assert answer.status_code == status
            if status == 413:
                assert answer.json()["detail"] == "The body is too long."
    assert len(deliveries(settings)) == 1


def test_long_headers_and_queries(settings: Settings, client: httpx.Client, url: str) -> None:
    to = f"{url}/{add_trigger(settings, 'none')}"
    assert client.post(to, json={}, headers={"X-Long": "x" * 20_000}).status_code == 431
    assert client.post(f"{to}?a={'x' * 9_000}", json={}).status_code == 414
    assert client.post(f"{to}?a={'x' * 8_000}", json={}).status_code == 202


def test_slow_body(
    settings: Settings, client: httpx.Client, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("live_api.hook_call._BODY_SECONDS", 0.2)
    address = add_trigger(settings, "none")
    host, _, port = url.removeprefix("http://").removesuffix("/hooks").partition(":")

    async def crawl() -> bytes:
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /hooks/{address} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
        writer.write(f"{head}Content-Length: 100\r\n\r\nabc".encode())
        answer = await reader.read()  # to the end: the connection is closed
        writer.close()
        return answer

    assert asyncio.run(crawl()).startswith(b"HTTP/1.1 408 ")
    assert not deliveries(settings)


def test_a_sender_that_leaves_in_the_middle(
    settings: Settings, client: httpx.Client, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    def breaking() -> Iterator[bytes]:
        yield b"{"
        raise ConnectionError

    to = f"{url}/{add_trigger(settings, 'none')}"
    with pytest.raises(ConnectionError):
        client.post(to, content=breaking(), headers=JSON)
    assert client.post(to, json={}).status_code == 202
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(deliveries(settings)) == 1
