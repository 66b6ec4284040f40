"""Ends of runs call URLs: signed, at least once, again until they are received."""

import asyncio
import base64
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from foundation.ids import TenantId
from sensors.calls import MOST_ATTEMPTS, Answer, answer_of, delay_seconds
from sensors.notices import notice_id
from tests.sensors.conftest import TENANT, Site
from tests.sensors.noticing import ERROR, Noticing, noticing
from tests.sensors.receiver import Received, Receiver, receiving

pytestmark = pytest.mark.anyio

SECRET = "whsec_" + base64.b64encode(b"signs what is sent").decode()


@pytest.fixture
async def notified(site: Site) -> AsyncGenerator[Noticing]:
    async with noticing(site) as opened:
        await opened.secrets().put(TENANT, "signing", SECRET, "ann")
        yield opened


def to(receiver: Receiver, **fields: Any) -> dict[str, Any]:
    entry = {"on": ["failed"], "url": receiver.url, "secret": "signing", **fields}
    return {"tell": entry}


async def call(notified: Noticing, **settings: Any) -> int:
    """Make all calls that are due, and await their ends; how many."""
    calls = 0
    async with notified.caller(**settings) as caller:
        while begun := await caller.dispatch():
            calls += begun
    return calls


def verified(received: Received, secret: str = SECRET) -> dict[str, Any]:
    """The payload, where the package's own check finds its signature good."""
    return Webhook(secret).verify(received.body, received.headers)


async def test_a_call_is_signed_and_says_what_has_ended(notified: Noticing) -> None:
    async with receiving() as receiver:
        run_id = await notified.ended(to(receiver))
        assert await call(notified) == 1
    (received,) = receiver.calls
    run = await notified.site.row("SELECT ended_at FROM graphwright.runs")
    payload = verified(received)
    assert datetime.fromisoformat(payload.pop("timestamp")) == run["ended_at"]
    api = notified.site.settings.api_url
    assert payload == {
        "type": "run.failed",
        "data": {
            "run_id": run_id,
            "graph": "tested",
            "version": 1,
            "status": "failed",
            "error": ERROR,
            "links": {"run": f"{api}/api/v1/runs/{run_id}"},
        },
    }
    assert received.path == "/hook"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["webhook-id"] == notice_id(run_id, "tell")
    notice = await notified.notice()
    assert (notice["status"], notice["attempts"], notice["reason"]) == ("delivered", 1, None)
    assert notice["ended_at"] is not None
    assert await call(notified) == 0
    assert await notified.ticks() == [], "a call starts no run"


async def test_a_receiver_that_is_down_gets_it_later_and_once(notified: Noticing) -> None:
    async with receiving() as down:
        await notified.ended(to(down))
    assert await call(notified) == 1
    notice = await notified.notice()
    assert (notice["status"], notice["reason"]) == ("pending", "no answer: ConnectError")
    assert 0 < notice["in_seconds"] <= 6
    assert await call(notified) == 0, "not at once"
    async with receiving(503) as receiver:
        await notified.execute(
            "UPDATE graphwright.graph_versions SET document = replace(document, %s, %s)",
            down.url,
            receiver.url,
        )
        for expected in (503, 200):
            await notified.make_due()
            assert await call(notified) == 1, expected
        await notified.make_due()
        assert await call(notified) == 0
    first, second = receiver.calls
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    verified(second)
    notice = await notified.notice()
    assert (notice["status"], notice["attempts"]) == ("delivered", 3)


async def test_a_dispatcher_that_dies_before_the_answer_is_written(notified: Noticing) -> None:
    await notified.execute(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'"
    )
    await notified.execute(
        "CREATE TRIGGER dies BEFORE UPDATE ON graphwright.notices FOR EACH ROW"
        " WHEN (NEW.status <> 'pending') EXECUTE FUNCTION die()"
    )
    async with receiving() as receiver:
        await notified.ended(to(receiver))
        assert await call(notified) == 1
        await notified.execute("DROP TRIGGER dies ON graphwright.notices")
        notice = await notified.notice()
        assert (notice["status"], notice["attempts"]) == ("pending", 1)
        assert 30 < notice["in_seconds"] <= 60, "until then it may be under way"
        assert await call(notified) == 0
        await notified.make_due()
        assert await call(notified) == 1
    first, second = receiver.calls
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert (await notified.notice())["status"] == "delivered"


@pytest.mark.parametrize(
    ("late", "status"), [(200, "delivered"), (500, "pending")], ids=["success", "failure"]
)
async def test_an_answer_that_comes_after_the_next_attempt_has_begun(
    notified: Noticing, late: int, status: str
) -> None:
    async with receiving(late) as receiver, notified.caller() as slow:
        receiver.holds = asyncio.Event()
        await notified.ended(to(receiver))
        assert await slow.dispatch() == 1
        await receiver.until(1)
        # Another claims it, and gets no answer either.
        await notified.execute(
            "UPDATE graphwright.notices SET attempts = 2, next_at = now() + interval '1 hour'"
        )
        receiver.holds.set()
    notice = await notified.notice()
    assert (notice["status"], notice["attempts"]) == (status, 2)
    assert notice["in_seconds"] > 3_000 or status == "delivered"


async def test_callers_at_once_call_once(notified: Noticing) -> None:
    async with receiving() as receiver:
        graph_id = await notified.publish(to(receiver))
        for _ in range(20):
            await notified.end(await notified.start(graph_id), "failed")
        assert sum(await asyncio.gather(*(call(notified) for _ in range(3)))) == 20
    assert len({each.headers["webhook-id"] for each in receiver.calls}) == 20
    assert len(receiver.calls) == 20
    assert {row["status"] for row in await notified.notices()} == {"delivered"}


async def test_a_tenant_may_have_many_calls_one_after_the_other(
    notified: Noticing, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else a dispatcher whose calls take a second says that it has begun none.
    monkeypatch.setattr("sensors.calling._LOOK_SECONDS", 60)
    async with receiving() as receiver:
        graph_id = await notified.publish(to(receiver))
        for _ in range(40):
            await notified.end(await notified.start(graph_id), "failed")
        assert await call(notified) == 40
    assert len(receiver.calls) == 40


async def test_a_slow_receiver_holds_up_no_other_tenant(notified: Noticing) -> None:
    other = TenantId("other")
    await notified.secrets().put(other, "signing", SECRET, "bob")
    async with receiving() as slow, receiving() as quick, notified.caller() as caller:
        slow.holds = asyncio.Event()
        graph_id = await notified.publish(to(slow))
        for _ in range(20):
            await notified.end(await notified.start(graph_id), "failed")
        theirs = await notified.ended(to(quick), tenant=other)
        begun = 0
        while more := await caller.dispatch():
            begun += more
        await quick.until(1)
        await slow.until(8)
        assert 9 <= begun <= 16, "a share of the slow one's, and the other's"
        slow.holds.set()
        while begun < 21:
            begun += await caller.dispatch()
    assert len(slow.calls) == 20
    assert (await notified.notice(theirs))["status"] == "delivered"


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (204, "delivered", None),
        (410, "rejected", "the receiver answered 410"),
        (404, "pending", "the receiver answered 404"),
        (f"500 {'x' * 9_000}", "pending", "the receiver answered 500 xxx"),
        ("302 Found\r\nLocation: /elsewhere", "pending", "the receiver answered 302 Found"),
        ("no HTTP", "pending", "no answer: RemoteProtocolError"),
    ],
)
async def test_what_an_answer_means(
    notified: Noticing, answer: int | str, status: str, reason: str | None
) -> None:
    async with receiving(answer) as receiver:
        await notified.ended(to(receiver))
        assert await call(notified) == 1
    assert len(receiver.calls) == 1, "a redirect is not followed"
    notice = await notified.notice()
    assert notice["status"] == status
    assert (notice["reason"] or "").startswith(reason or "")
    assert len(notice["reason"] or "") < 200
    assert (notice["ended_at"] is None) == (status == "pending")


async def test_after_the_last_attempt_it_is_given_up(notified: Noticing) -> None:
    async with receiving(500) as receiver:
        await notified.ended(to(receiver))
        await notified.execute("UPDATE graphwright.notices SET attempts = %s", MOST_ATTEMPTS - 1)
        assert await call(notified) == 1
    notice = await notified.notice()
    assert (notice["status"], notice["attempts"]) == ("rejected", MOST_ATTEMPTS)


@pytest.mark.parametrize(
    ("value", "reason"),
    [(None, "there is no secret later"), ("x", "is not base64")],
)
async def test_without_a_secret_it_waits_for_one(
    notified: Noticing, value: str | None, reason: str
) -> None:
    if value is not None:
        await notified.secrets().put(TENANT, "later", value, "ann")
    async with receiving() as receiver:
        await notified.ended(to(receiver, secret="later"))
        assert await call(notified) == 1
        notice = await notified.notice()
        assert notice["status"] == "pending"
        assert reason in notice["reason"]
        await notified.secrets().put(TENANT, "later", SECRET, "ann")
        await notified.make_due()
        assert await call(notified) == 1
    verified(receiver.calls[0])
    assert len(receiver.calls) == 1


async def test_while_a_secret_is_changed_both_values_sign(notified: Noticing) -> None:
    new = "whsec_" + base64.b64encode(b"signs from now on").decode()
    await notified.secrets().put(TENANT, "signing", new, "ann", keep_previous_seconds=60)
    async with receiving() as receiver:
        await notified.ended(to(receiver))
        await call(notified)
    (received,) = receiver.calls
    assert verified(received, new) == verified(received, SECRET)
    with pytest.raises(WebhookVerificationError):
        verified(received, "whsec_" + base64.b64encode(b"another").decode())


async def test_private_addresses_are_called_only_where_the_operator_allows_it(
    notified: Noticing,
) -> None:
    async with receiving() as receiver:
        await notified.ended(to(receiver))
        assert await call(notified, http_private=False) == 1
    assert receiver.calls == []
    assert "public internet" in (await notified.notice())["reason"]


async def test_while_the_sensor_is_off_no_url_is_called(notified: Noticing) -> None:
    async with receiving() as receiver:
        await notified.ended(to(receiver))
        await notified.execute(
            "INSERT INTO instigators (selector_id, status) VALUES (%s, 'STOPPED')",
            notified.instigator.selector_id,
        )
        assert await call(notified) == 0
        assert (await notified.notice())["attempts"] == 0


async def test_a_run_that_was_removed_meanwhile(notified: Noticing) -> None:
    async with receiving() as receiver:
        await notified.ended(to(receiver))
        await notified.execute("DELETE FROM graphwright.runs")
        assert await call(notified) == 1
    assert (await notified.notice())["status"] == "rejected"
    assert receiver.calls == []


async def test_a_long_error_is_cut(notified: Noticing) -> None:
    async with receiving() as receiver:
        run_id = await notified.start(await notified.publish(to(receiver)))
        await notified.end(run_id, "failed", error={"code": "x", "message": "é" * 9_000})
        assert await call(notified) == 1
    (received,) = receiver.calls
    assert verified(received)["data"]["error"] == {"code": "x", "message": "é" * 4_000}


def test_the_attempts_take_about_a_day() -> None:
    failed = Answer("down", is_final=False)
    for chance, hours in ((0.0, 19.5), (1.0, 23.6)):
        delays = [delay_seconds(attempts, failed, chance) for attempts in range(1, MOST_ATTEMPTS)]
        assert all(delays)
        assert sum(filter(None, delays)) == pytest.approx(hours * 3_600, rel=0.01)
    assert delay_seconds(MOST_ATTEMPTS, failed, 0) is None
    assert delay_seconds(1, Answer("gone"), 0) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 5),
        ("120", 120),
        ("0", 5),
        ("-1", 5),
        ("²", 5),
        ("9" * 400, 6 * 3_600),
        ("soon", 5),
        ("Thu, 31 Jan 2030 05:00:00 GMT", 3_600),
        ("Thu, 31 Jan 2030 05:00:00 -0000", 3_600),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 5),
    ],
)
def test_a_receiver_may_ask_for_time(text: str, seconds: float) -> None:
    response = httpx.Response(503, headers={b"retry-after": text.encode("latin-1")})
    answer = answer_of(response, datetime(2030, 1, 31, 4, tzinfo=UTC))
    assert delay_seconds(1, answer, 0) == seconds
