"""Webhooks and timers in the stock Dagster UI: ticks that link to their runs, and the switches."""

import shutil
import time
from collections.abc import Callable, Generator
from typing import Any

import httpx
import pytest

from graphwright.client import Client
from tests.graphwright.conftest import Stack

pytestmark = [
    pytest.mark.xdist_group("stack"),
    pytest.mark.timeout(300),
    pytest.mark.browser,
]

_SECONDS = 60
CLICK = "box => box.click()"  # the box itself lies outside of the window, behind what is drawn
_LOCATION = "/locations/graphwright@graphwright"

GRAPH: dict[str, Any] = {
    "apiVersion": "graphwright/v1",
    "kind": "Graph",
    "metadata": {"name": "started-by-itself"},
    "nodes": {"a": {"type": "data.transform", "with": {"value": 1}}},
    "triggers": {
        "call": {"type": "webhook", "scheme": "none", "dedupe": "off"},
        "tick": {"type": "timer", "every": "1s"},
    },
}


@pytest.fixture(scope="module")
def page() -> Generator[Any]:
    """A page of a real browser."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium: install Debian's package `chromium`")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        opened = browser.new_page()
        opened.set_default_timeout(_SECONDS * 1_000)
        yield opened
        browser.close()


@pytest.fixture(scope="module")
def triggers(stack: Stack) -> Generator[dict[str, Any]]:
    """The triggers of a published graph, by their names."""
    with stack.http() as http:
        assert http.post("/graphs", json=GRAPH).is_success
        found = http.get("/graphs/started-by-itself/triggers").json()["items"]
        yield {trigger["name"]: trigger for trigger in found}
        http.post("/graphs", json={**GRAPH, "triggers": {}})


def until(what: Callable[[], Any]) -> Any:
    """What it gives, once that is true."""
    deadline = time.monotonic() + _SECONDS
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def runs_of(stack: Stack, kind: str) -> set[str]:
    """The runs that triggers of this kind have started: one a second, so more than a page soon."""
    found = stack.status()
    with Client(found["api"], found["token"]) as client:
        listed = client.runs.list(graph="started-by-itself")
        return {run["run_id"] for run in listed if run["trigger"]["type"] == kind}


def test_the_webhook_sensor(stack: Stack, triggers: dict[str, Any], page: Any) -> None:
    url = triggers["call"]["url"]

    def call() -> str:
        answer = httpx.post(url, json={}, timeout=60, trust_env=False)
        assert answer.status_code == 202
        return answer.json()["delivery_id"]

    def verdict(delivery: str) -> str:
        with stack.http() as http:
            return http.get(f"/deliveries/{delivery}").json()["verdict"]

    delivery = call()
    until(lambda: verdict(delivery) == "started")
    with stack.http() as http:
        run_id = http.get(f"/deliveries/{delivery}").json()["run_id"]

    page.goto(f"{stack.status()['dagster']}{_LOCATION}/sensors/webhook_sensor")
    link = page.get_by_role("link", name=run_id[:8])
    link.first.wait_for()
    switch = page.get_by_role("checkbox").first
    assert switch.is_checked()

    switch.evaluate(CLICK)
    until(lambda: not switch.is_checked())
    waiting = call()
    refused_to_move = time.monotonic() + 4  # longer than the dispatcher's own look round
    while time.monotonic() < refused_to_move:
        assert verdict(waiting) == "pending"
        time.sleep(0.2)
    switch.evaluate(CLICK)
    until(lambda: verdict(waiting) == "started")

    href = link.first.get_attribute("href")
    assert href == f"/runs/{run_id}"
    page.goto(f"{stack.status()['dagster']}{href}")
    page.get_by_text("RUN_SUCCESS").first.wait_for()


def test_the_timer_schedule(stack: Stack, triggers: dict[str, Any], page: Any) -> None:
    first = until(lambda: runs_of(stack, "timer"))
    page.goto(f"{stack.status()['dagster']}{_LOCATION}/schedules/timer_schedule")
    page.get_by_text("run requested").first.wait_for()
    switch = page.get_by_role("checkbox").first
    assert switch.is_checked()

    switch.evaluate(CLICK)
    until(lambda: not switch.is_checked())
    # A batch that had begun may still end; from then on nothing starts.
    before = _settled(lambda: runs_of(stack, "timer"))
    assert before >= first
    switch.evaluate(CLICK)
    until(lambda: runs_of(stack, "timer") - before)


def _settled(look: Callable[[], set[str]]) -> set[str]:
    """What it gives, once that has been the same for three due times."""
    seen, since = look(), time.monotonic()
    deadline = since + _SECONDS
    while time.monotonic() - since < 3.5:
        assert time.monotonic() < deadline
        if (found := look()) != seen:
            seen, since = found, time.monotonic()
        time.sleep(0.2)
    return seen
