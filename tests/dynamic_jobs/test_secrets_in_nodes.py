"""Nodes that read secrets: they get the values, and nothing that is stored, sent or logged does."""

import asyncio
import base64
import json
import logging
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from psycopg import sql

import node_types
from dynamic_jobs.compiling.prepared import PreparedNode
from dynamic_jobs.executing.node_secrets import NodeSecrets
from dynamic_jobs.executing.redaction import MASK, Redactor
from dynamic_jobs.reading.event_log import read_events
from foundation.database import AsyncPool
from foundation.ids import NodeId, RunId
from foundation.secret_store import SecretStore, master_keys
from foundation.settings import Settings
from foundation.tenant_pool import TenantPool
from graph_defs.expressions import Scope
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value
from tests.dynamic_jobs.test_parity import run_fast, run_stock

MORE_TYPES: Final = Path(__file__).parent / "node_types"
SECRET: Final = 'tök/en+with "quotes" & 20% Spaces?'
"""Which every encoding writes differently."""
TOKEN: Final = "tkn-4f9Qx7-ZZ81"
KINDS: Final = ("leaky_inline", "leaky_loop", "leaky_thread", "leaky_process")


@pytest.fixture(autouse=True)
def more_node_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node types of the tests, as if they were installed. Asked for before ``bench``."""
    monkeypatch.setattr(node_types, "__path__", [*node_types.__path__, str(MORE_TYPES)])


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"http_private": True})


class Echo(ThreadingHTTPServer):
    """Answers with what it was asked, in every way in which a server may."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Echo)
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = {
            "path": self.path,
            "query": parse_qs(urlsplit(self.path).query),
            "authorization": self.headers["Authorization"],
            "basic": self.headers["X-Basic"],
            "body": body,
            "parsed": json.loads(body),
        }
        server.asked.append(asked)
        failing = self.path.startswith("/fails")
        self.send_response(500 if failing else 200, self.headers["Authorization"])
        content = json.dumps(asked).encode()
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Authorization", self.headers["Authorization"])
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def put(bench: Bench, **values: str) -> None:
    """Set these secrets, as the API does."""

    async def work(pool: AsyncPool) -> None:
        store = SecretStore(TenantPool(pool), master_keys(bench.settings))
        for name, text in values.items():
            await store.put(TENANT, name, text, "tester")

    bench.with_pool(work)


def request(url: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "http.request",
        "with": {
            "url": url,
            "method": "POST",
            "headers": {
                "Authorization": "Bearer ${{ secrets.TOKEN }}",
                "X-Basic": "Basic ${{ base64.encode(bytes('ann:' + secrets.SECRET)) }}",
            },
            "query": {"key": "${{ secrets.SECRET }}"},
            "json": {"${{ secrets.TOKEN }}": ["${{ secrets.SECRET }}"]},
        },
        **more,
    }


def events(bench: Bench, run_id: RunId) -> list[Any]:
    """As clients see them."""

    async def read(pool: AsyncPool) -> list[Any]:
        async with pool.connection() as connection:
            page = await read_events(connection, TENANT, run_id, 0, 1_000)
        return list(page.events)

    return bench.with_pool(read)


def everything(bench: Bench) -> Iterator[tuple[str, str]]:
    """Every row of every table, ours and Dagster's, and every file of the state folder."""
    tables = bench.connection.execute(
        "SELECT table_schema AS s, table_name AS t FROM information_schema.tables"
        " WHERE table_schema IN ('public', 'graphwright') AND table_type = 'BASE TABLE'"
    ).fetchall()
    assert {"event_logs", "runs", "run_tags", "snapshots", "kvs"} <= {row["t"] for row in tables}
    for row in tables:
        table = sql.Identifier(row["s"], row["t"])
        for found in bench.connection.execute(sql.SQL("SELECT * FROM {}").format(table)):
            yield row["t"], json.dumps({name: _readable(each) for name, each in found.items()})
    for file in bench.settings.state.rglob("*"):
        if file.is_file() and file.name != "master.key":
            yield str(file), file.read_bytes().decode("utf-8", "replace")


def _readable(column: Any) -> str:
    if isinstance(column, bytes):
        try:
            return zlib.decompress(column).decode()
        except zlib.error:
            return column.decode("utf-8", "replace")
    return column if isinstance(column, str) else json.dumps(column, default=str)


def assert_clean(bench: Bench, run_id: RunId, logs: str) -> None:
    """No form of a secret is anywhere."""
    redactor = Redactor([SECRET, TOKEN])
    for where, text in everything(bench):
        assert not redactor.finds(text.encode()), where
    assert not redactor.finds(json.dumps(events(bench, run_id)).encode())
    assert not redactor.finds(logs.encode())
    # The check itself sees what it is to see.
    assert redactor.finds(json.dumps({"a": quote(SECRET)}).encode())


@pytest.mark.parametrize("how", [run_fast, run_stock])
def test_a_server_gets_the_secrets_and_nothing_else_does(
    bench: Bench, echo: Echo, how: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    put(bench, SECRET=SECRET, TOKEN=TOKEN)
    nodes = {
        "call": request(f"{echo.url}/${{{{ secrets.TOKEN }}}}"),
        "after": value("${{ nodes.call.output.json.authorization }}", "call"),
    }
    outputs = {"all": "${{ nodes.call.output }}"}
    run_id = how(bench, bench.publish(graph(nodes, outputs=outputs)))
    assert bench.row(run_id)["status"] == "succeeded"
    (asked,) = echo.asked
    basic = base64.b64encode(f"ann:{SECRET}".encode()).decode()
    assert asked["authorization"] == f"Bearer {TOKEN}"
    assert asked["basic"] == f"Basic {basic}"
    assert asked["query"] == {"key": [SECRET]}
    assert asked["path"].startswith(f"/{TOKEN}?")
    assert asked["parsed"] == {TOKEN: [SECRET]}
    rows = bench.connection.execute(
        "SELECT node, value FROM graphwright.node_outputs WHERE run_id = %s", (run_id,)
    )
    stored = {row["node"]: json.loads(row["value"]) for row in rows}
    told = stored["call"]["json"]
    assert told["authorization"] == f"Bearer {MASK}"
    assert told["basic"].startswith("Basic ") and told["basic"].endswith(MASK)
    assert told["parsed"] == {MASK: [MASK]}
    assert told["query"] == {"key": [MASK]}
    assert told["path"] == f"/{MASK}?key={MASK}"
    assert stored["call"]["headers"]["x-authorization"] == f"Bearer {MASK}"
    assert stored["after"] == f"Bearer {MASK}"
    assert_clean(bench, run_id, caplog.text)


def test_a_failure_is_without_the_secrets_at_each_attempt(
    bench: Bench, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    put(bench, SECRET=SECRET, TOKEN=TOKEN)
    node = request(f"{echo.url}/fails", retry={"limit": 1, "delay_seconds": 0})
    run_id = run_fast(bench, bench.publish(graph({"call": node})))
    row = bench.row(run_id)
    assert row["error"]["code"] == "unexpected_status"
    assert row["error"]["message"] == f"127.0.0.1 answered 500 Bearer {MASK}."
    assert len(echo.asked) == 2
    assert "node.retrying" in {event["type"] for event in events(bench, run_id)}
    assert_clean(bench, run_id, caplog.text)


def test_a_host_that_is_a_secret_is_not_named(bench: Bench) -> None:
    put(bench, HOST="Tenant-Of-Mine")
    nodes = {
        "call": {"type": "http.request", "with": {"url": "http://${{ secrets.HOST }}.invalid/"}}
    }
    run_id = run_fast(bench, bench.publish(graph(nodes)))
    assert bench.row(run_id)["error"]["message"] == (
        f"{MASK}.invalid cannot be reached: ConnectError."
    )


@pytest.mark.parametrize("way", ["output", "error", "crash", "misfit"])
def test_no_kind_of_node_tells_a_secret(
    bench: Bench, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    put(bench, SECRET=SECRET)
    given = {"secret": "<${{ secrets.SECRET }}>", "way": way}
    nodes = {
        kind: {"type": f"tests.{kind}", "with": given, "continue_on_error": True} for kind in KINDS
    }
    run_id = run_fast(bench, bench.publish(graph(nodes)))
    seen = events(bench, run_id)
    ended = {event["node"]: event for event in seen if event["type"].startswith("node.")}
    if way == "output":
        assert bench.row(run_id)["status"] == "succeeded"
        (told,) = {
            json.dumps(event["data"]["value"]["told"])
            for event in seen
            if event["type"] == "node.output"
        }
        assert list(json.loads(told)) == [f"<{MASK}>"]
    elif way == "error":
        errors = [ended[kind]["data"]["error"] for kind in KINDS]
        assert errors == [
            {"code": "node_failed", "message": f"it was <{MASK}>", "hint": f"not %3C{MASK}%3E"}
        ] * len(KINDS)
    else:
        assert {ended[kind]["data"]["error"]["code"] for kind in KINDS} == {"node_crashed"}
        assert caplog.text.count("broke\nTraceback") == len(KINDS)
    logged = [event["data"]["message"] for event in seen if event["type"] == "node.log"]
    assert logged == [f"the secret is <{MASK}>"] * 2
    assert_clean(bench, run_id, caplog.text)


@pytest.mark.parametrize("way", ["output", "error"])
def test_nor_does_one_under_dagsters_own_executor(
    bench: Bench, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    put(bench, SECRET=SECRET)
    given = {"secret": "<${{ secrets.SECRET }}>", "way": way}
    run_id = run_stock(
        bench, bench.publish(graph({"n": {"type": "tests.leaky_thread", "with": given}}))
    )
    assert bench.row(run_id)["status"] == ("failed" if way == "error" else "succeeded")
    (logged,) = (event for event in events(bench, run_id) if event["type"] == "node.log")
    assert f"the secret is <{MASK}>" in logged["data"]["message"]
    assert_clean(bench, run_id, caplog.text)


def test_a_large_output_is_without_the_secret_in_the_object_store(bench: Bench) -> None:
    put(bench, SECRET=SECRET)
    large = bench.settings.inline_output_bytes + 1
    given = {"secret": "${{ secrets.SECRET }}", "size": large}
    run_id = run_fast(
        bench, bench.publish(graph({"n": {"type": "tests.leaky_thread", "with": given}}))
    )
    assert bench.row(run_id)["status"] == "succeeded"
    (file,) = (f for f in (bench.settings.state / "objects").rglob("*") if f.is_file())
    assert json.loads(file.read_text())["filling"] == "." * large + MASK
    assert_clean(bench, run_id, "")


@pytest.mark.parametrize("how", [run_fast, run_stock])
def test_a_missing_secret_fails_the_node_once_and_is_named(
    bench: Bench, echo: Echo, how: Any
) -> None:
    put(bench, TOKEN=TOKEN)
    node = request(echo.url, retry={"limit": 3})
    run_id = how(bench, bench.publish(graph({"call": node})))
    (failed,) = [event for event in events(bench, run_id) if event["type"] == "node.failed"]
    assert failed["data"]["error"] == {
        "code": "missing_secret",
        "message": "there is no secret SECRET",
        "hint": "Run `graphwright secret set SECRET`, then run the node again.",
    }
    assert echo.asked == []


def test_another_tenants_secret_is_missing(bench: Bench, echo: Echo) -> None:
    put(bench, TOKEN=TOKEN, SECRET=SECRET)
    bench.connection.execute("UPDATE graphwright.secrets SET tenant = 'other'")
    run_id = run_fast(bench, bench.publish(graph({"call": request(echo.url)})))
    assert bench.row(run_id)["error"]["message"] == "there is no secret SECRET, TOKEN"


def test_a_secret_that_could_not_be_struck_out_is_not_given_away(bench: Bench) -> None:
    put(bench, PIN=" 123 ")
    nodes = {"n": {"type": "tests.leaky_loop", "with": {"secret": "${{ secrets.PIN }}"}}}
    run_id = run_fast(bench, bench.publish(graph(nodes)))
    assert bench.row(run_id)["error"]["code"] == "secret_too_short"
    assert "node.log" not in {event["type"] for event in events(bench, run_id)}


def test_an_expression_that_fails_on_a_secret_does_not_tell_it(bench: Bench) -> None:
    put(bench, SECRET=SECRET)
    given = {"secret": "${{ {'a': 1}[secrets.SECRET] }}"}
    run_id = run_fast(
        bench, bench.publish(graph({"n": {"type": "tests.leaky_loop", "with": given}}))
    )
    error = bench.row(run_id)["error"]
    assert error["code"] == "expression_failed"
    assert error["message"].endswith(f"there is no key '{MASK}'")


def test_a_master_key_that_is_of_no_use_may_be_mended_before_the_next_attempt(
    bench: Bench, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    put(bench, SECRET=SECRET, TOKEN=TOKEN)
    (bench.settings.state / "master.key").chmod(0o644)
    retry = {"limit": 1, "delay_seconds": 0, "on": ["secrets_unavailable"]}
    run_id = run_fast(bench, bench.publish(graph({"call": request(echo.url, retry=retry)})))
    assert "node.retrying" in {event["type"] for event in events(bench, run_id)}
    assert bench.row(run_id)["error"]["code"] == "secrets_unavailable"
    assert echo.asked == []
    assert "so others may read it" in caplog.text  # for the operator, in the worker's log


def test_a_restart_of_the_database_is_not_noticed(bench: Bench) -> None:
    put(bench, ONE="the first", TWO="the second")

    async def work() -> list[dict[str, str]]:
        secrets = NodeSecrets(bench.settings)
        try:
            first = await secrets.reveal(TENANT, {"ONE"})
            bench.connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            second = await secrets.reveal(TENANT, {"TWO"})
        finally:
            await secrets.disconnect()
            secrets.close()
        assert "the first" not in repr(first)
        return [first.values, second.values]

    assert asyncio.run(work()) == [{"ONE": "the first"}, {"TWO": "the second"}]


def test_without_secrets_nothing_is_opened(bench: Bench) -> None:
    """And a node that needs no task for it gets none."""
    runner = bench.runtime.runner
    scope = Scope({}, {}, {}, {}, secrets={"SECRET": SECRET})
    types = bench.runtime.catalogue
    for written, now in (("s", True), ("${{ secrets.SECRET }}", False)):
        given = bench.runtime.evaluator.compile({"secret": written})
        node = PreparedNode(NodeId("n"), types["tests.leaky_inline"], given, ())
        assert (runner.run_now(node, scope) is not None) == now
    run_fast(bench, bench.publish(graph({"n": value(1)})))
    assert not (bench.settings.state / "master.key").exists()
