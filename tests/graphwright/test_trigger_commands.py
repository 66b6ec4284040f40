"""``graphwright trigger``, ``delivery`` and ``backfill`` against a running stack."""

import itertools
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from foundation.errors import Unavailable
from foundation.ids import new_id
from graphwright.client import Client
from tests.graphwright.conftest import Stack

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]

GRAPH = """
apiVersion: graphwright/v1
kind: Graph
metadata: {name: triggered}
params: {type: object, properties: {text: {type: string, default: none}}}
nodes:
  say: {type: data.transform, with: {value: "${{ params.text }}"}}
outputs: {said: "${{ nodes.say.output }}"}
triggers:
  hook:
    type: webhook
    scheme: none
    filter: ${{ trigger.body.text != "" }}
    params: {text: "${{ trigger.body.text }}"}
  nightly:
    type: timer
    cron: 30 2 * * *
    timezone: Europe/Berlin
    params: {text: "${{ trigger.due_at }}"}
"""
HOOK, TIMER = "triggered/hook", "triggered/nightly"
RANGE = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-04T00:00:00Z")


@pytest.fixture(autouse=True, scope="module")
def published(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("graphs") / "triggered.yaml"
    path.write_text(GRAPH, "utf-8")
    said = stack("graph", "apply", str(path))
    assert said.returncode == 0, said.stderr


def lines(said: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert said.returncode == 0, said.stderr
    return [json.loads(line) for line in said.stdout.splitlines()]


def line(said: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    (found,) = lines(said)
    return found


def decided(stack: Stack, delivery_id: str) -> dict[str, Any]:
    """The delivery, once it has a verdict."""
    deadline = time.monotonic() + 60
    while (found := line(stack("delivery", "show", delivery_id)))["verdict"] == "pending":
        assert time.monotonic() < deadline, "it has no verdict"
    return found


def outputs(stack: Stack, run_id: str) -> dict[str, Any]:
    return lines(stack("run", "watch", run_id))[-1]["outputs"]


def test_triggers_are_listed_shown_and_switched(stack: Stack) -> None:
    hook, nightly = lines(stack("trigger", "list", "triggered"))
    assert (hook["name"], nightly["name"]) == ("hook", "nightly")
    assert hook["url"].startswith(f"{stack.status()['hooks']}/hooks/")
    for name in (TIMER, nightly["trigger_id"]):
        assert line(stack("trigger", "show", name)) == nightly
        off = line(stack("trigger", "disable", name))
        assert (off["enabled"], off["next_due_at"]) == (False, None)
        assert line(stack("trigger", "enable", name)) == nightly


def test_the_due_times_to_come_are_shown(stack: Stack) -> None:
    first, second = lines(
        stack("trigger", "preview", TIMER, "--count", "2", "--after", "2030-03-30T12:00:00Z")
    )
    assert first["due_at_local"] == "2030-03-31T03:00:00+02:00"
    assert second["due_at_local"] == "2030-04-01T02:30:00+02:00"
    assert len(lines(stack("trigger", "preview", TIMER))) == 10


def test_a_timer_is_fired(stack: Stack) -> None:
    key = new_id()
    fired = [line(stack("trigger", "fire", TIMER, "--idempotency-key", key)) for _ in range(2)]
    assert fired[0]["run_id"] == fired[1]["run_id"]
    run = lines(stack("run", "watch", fired[0]["run_id"]))[-1]
    assert run["outputs"] == {"said": run["trigger"]["due_at"]}
    refused = stack("trigger", "fire", HOOK)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "redeliver" in refused.stderr


def test_a_call_is_found_in_the_inbox_and_delivered_again(stack: Stack) -> None:
    url = line(stack("trigger", "show", HOOK))["url"]
    wanted, unwanted = (
        httpx.post(url, json={"text": text}, timeout=60, trust_env=False).json()["delivery_id"]
        for text in ("hello", "")
    )
    started = decided(stack, wanted)
    assert (started["verdict"], started["body"]) == ("started", '{"text":"hello"}')
    assert started["latency_ms"] >= 0
    assert outputs(stack, started["run_id"]) == {"said": "hello"}
    assert decided(stack, unwanted)["verdict"] == "filtered"

    again = line(stack("delivery", "redeliver", wanted))
    assert again["redelivery_of"] == wanted
    repeated = decided(stack, again["delivery_id"])
    assert repeated["run_id"] != started["run_id"]
    assert outputs(stack, repeated["run_id"]) == {"said": "hello"}

    def listed(*filters: str) -> list[str]:
        return [each["delivery_id"] for each in lines(stack("delivery", "list", *filters))]

    assert listed("--trigger", HOOK) == [again["delivery_id"], unwanted, wanted]
    assert listed("--graph", "triggered", "--verdict", "filtered") == [unwanted]
    assert listed("--trigger", started["trigger_id"], "--limit", "1") == [again["delivery_id"]]


def test_a_backfill_is_watched_to_its_end(stack: Stack) -> None:
    said = lines(stack("trigger", "backfill", TIMER, *RANGE, "--watch", timeout=120))
    done = said[-1]
    assert (done["status"], done["total"], done["runs"]) == ("succeeded", 3, {"succeeded": 3})
    assert line(stack("backfill", "show", done["backfill_id"])) == done
    assert lines(stack("backfill", "watch", done["backfill_id"])) == [done]
    assert done["backfill_id"] in {each["backfill_id"] for each in lines(stack("backfill", "list"))}
    over = stack("backfill", "cancel", done["backfill_id"])
    assert (over.returncode, over.stdout) == (1, "")


def test_watching_a_backfill_outlives_broken_connections(stack: Stack) -> None:
    found = stack.status()
    key = new_id()
    ask = ("trigger", "backfill", TIMER, *RANGE, "--idempotency-key", key)
    made = [line(stack(*ask)) for _ in range(2)]
    assert made[0]["backfill_id"] == made[1]["backfill_id"]
    with restarting_proxy(found["api"]) as url, Client(url, found["token"]) as client:
        seen = list(client.backfills.watch(made[0]["backfill_id"]))
    assert seen[-1]["status"] == "succeeded"
    interrupted = threading.Event()
    interrupted.set()
    with Client(url, found["token"], interrupted=interrupted) as client, pytest.raises(Unavailable):
        list(client.backfills.watch(made[0]["backfill_id"]))


@contextmanager
def restarting_proxy(target: str) -> Generator[str]:
    """A proxy that answers one request of a connection, and closes the first and then each second
    connection without an answer."""
    to = urlsplit(target)
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with suppress(OSError):
            for number in itertools.count():
                client, _ = listener.accept()
                with client:
                    request = client.recv(65_536).replace(b"keep-alive", b"close")
                    if number % 2 == 0:
                        continue
                    with socket.create_connection((to.hostname, to.port)) as server:
                        server.sendall(request)
                        while part := server.recv(65_536):
                            client.sendall(part)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def test_a_backfill_is_cancelled_and_watching_it_fails(stack: Stack) -> None:
    assert stack("graph", "pause", "triggered").returncode == 0
    made = line(stack("trigger", "backfill", TIMER, *RANGE, "--max-running", "1"))
    assert (made["status"], made["max_running"]) == ("running", 1)
    asked = line(stack("backfill", "cancel", made["backfill_id"]))
    assert asked["status"] in {"cancelling", "cancelled"}
    watched = stack("backfill", "watch", made["backfill_id"])
    assert watched.returncode == 1
    assert json.loads(watched.stdout.splitlines()[-1])["status"] == "cancelled"
    assert stack("graph", "resume", "triggered").returncode == 0


@pytest.mark.parametrize(
    ("ask", "code", "says"),
    [
        (lambda: ("trigger", "list", "absent"), 1, "no graph absent"),
        (lambda: ("trigger", "show", "triggered/absent"), 1, "no trigger absent"),
        (lambda: ("trigger", "enable", new_id()), 1, "no trigger"),
        (lambda: ("trigger", "preview", HOOK), 1, "no timer"),
        (lambda: ("trigger", "preview", TIMER, "--after", "soon"), 2, "/after"),
        (lambda: ("trigger", "backfill", TIMER, "--from", "x", "--to", "y"), 2, "/from"),
        (lambda: ("delivery", "list", "--verdict", "lost"), 2, "/verdict"),
        (lambda: ("delivery", "list", "--trigger", "hook"), 2, "/trigger"),
        (lambda: ("delivery", "show", new_id()), 1, "no delivery"),
        (lambda: ("delivery", "redeliver", "x"), 1, "no delivery"),
        (lambda: ("backfill", "cancel", new_id()), 1, "no backfill"),
    ],
)
def test_what_cannot_be_done_is_said(
    stack: Stack, ask: Callable[[], tuple[str, ...]], code: int, says: str
) -> None:
    said = stack(*ask())
    assert (said.returncode, said.stdout) == (code, "")
    assert says in said.stderr
