"""The commands for versions, logs, keys, members and the audit log, against a running stack."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import forking
from tests.forking import Forked
from tests.graphwright.conftest import Stack

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]

GRAPH = """
apiVersion: graphwright/v1
kind: Graph
metadata: {name: kept, labels: {team: cli}}
params: {type: object, properties: {n: {type: integer, default: 1}}}
nodes:
  first: {type: data.transform, with: {value: "${{ params.n }}"}}
  second: {type: data.transform, needs: [first], with: {value: "${{ nodes.first.output + 1 }}"}}
outputs: {n: "${{ nodes.second.output }}"}
triggers:
  hook:
    type: webhook
    scheme: none
    filter: ${{ trigger.body.n > 0 }}
    params: {n: "${{ trigger.body.n }}"}
  signed: {type: webhook, scheme: slack, secret: slack_key, params: {n: 3}}
  nightly: {type: timer, cron: 30 2 * * *}
"""


def lines(said: subprocess.CompletedProcess[str], code: int = 0) -> list[dict[str, Any]]:
    assert said.returncode == code, said.stderr
    return [json.loads(line) for line in said.stdout.splitlines()]


def line(said: subprocess.CompletedProcess[str], code: int = 0) -> dict[str, Any]:
    (found,) = lines(said, code)
    return found


@pytest.fixture(scope="module")
def tenant(stack: Stack) -> Stack:
    """The command line as tenant ``cli``."""
    token = stack("token", "--tenant", "cli").stdout.strip()
    return Stack(stack.state, {**stack.environment, "GRAPHWRIGHT_TOKEN": token})


@pytest.fixture(scope="module")
def document(tenant: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "kept.yaml"
    path.write_text(GRAPH, "utf-8")
    assert tenant("graph", "apply", str(path)).returncode == 0
    return path


def test_versions_are_compared_and_rolled_back(tenant: Stack, document: Path) -> None:
    first = line(tenant("graph", "show", "kept"))
    changed = document.with_name("changed.yaml")
    changed.write_text(GRAPH.replace("output + 1", "output + 2"), "utf-8")
    stale = tenant("graph", "apply", str(changed), "--if-match", '"no-such"')
    assert (stale.returncode, stale.stdout) == (1, "")
    second = line(tenant("graph", "apply", str(changed), "--if-match", first["etag"]))
    assert second["version"] == first["version"] + 1
    found = line(tenant("graph", "diff", "kept"))
    assert (found["from"], found["to"]) == (str(first["version"]), str(second["version"]))
    assert found["nodes"]["changed"] == ["second"]
    assert [each["version"] for each in lines(tenant("graph", "versions", "kept"))][:2] == [
        second["version"],
        first["version"],
    ]
    back = line(tenant("graph", "rollback", "kept", str(first["version"])))
    assert back["fingerprint"] == first["fingerprint"]
    listed = lines(tenant("graph", "list", "--label", "team=cli"))
    assert [each["name"] for each in listed] == ["kept"]
    assert lines(tenant("graph", "list", "--label", "team=other")) == []
    assert tenant("graph", "list", "--label", "team").returncode == 2


def test_a_draft_is_kept_published_and_the_graph_deleted(tenant: Stack, document: Path) -> None:
    other = document.with_name("other.yaml")
    other.write_text(GRAPH.replace("name: kept", "name: short-lived"), "utf-8")
    assert line(tenant("graph", "draft", "short-lived", str(other)))["errors"] == []
    published = line(tenant("graph", "publish", "short-lived"))
    assert (published["name"], published["version"]) == ("short-lived", 1)
    assert line(tenant("graph", "delete", "short-lived"))["deleted"] is True
    assert tenant("graph", "show", "short-lived").returncode == 1


def test_runs_are_started_together_and_their_outputs_read(
    tenant: Stack, document: Path, tmp_path: Path
) -> None:
    asked = tmp_path / "runs.jsonl"
    asked.write_text("".join(f'{{"graph": "kept", "params": {{"n": {n}}}}}\n' for n in (1, 5)))
    started = lines(tenant("run", "batch", str(asked)))
    assert len(started) == 2
    assert tenant("run", "watch", started[1]["run_id"]).returncode == 0
    assert tenant("run", "output", started[1]["run_id"], "second").stdout == "6\n"
    asked.write_text('{"graph": "kept", "params": {"n": "many"}}\n')
    wrong = tenant("run", "batch", str(asked))
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "/runs/0/params/n" in wrong.stderr
    asked.write_text("no json\n")
    assert tenant("run", "batch", str(asked)).returncode == 2
    assert lines(tenant("run", "watchers", started[1]["run_id"])) == []
    many = lines(tenant("run", "list", "--status", "succeeded", "--status", "failed"))
    assert started[1]["run_id"] in {each["run_id"] for each in many}


def test_logs_are_printed_until_the_run_has_ended(tenant: Stack, document: Path) -> None:
    run_id = line(tenant("run", "start", "kept"))["run_id"]
    said = lines(tenant("run", "logs", run_id, "--level", "warning"))
    assert all(each["type"] == "node.log" for each in said)
    assert tenant("run", "logs", run_id, "--level", "loud").returncode == 2


def test_a_trigger_is_tried_out(tenant: Stack, document: Path) -> None:
    started = line(tenant("trigger", "test", "kept/hook", "--body", '{"n": 7}'))
    assert (started["verdict"], started["body"]) == ("started", '{"n": 7}')
    unwanted = line(tenant("trigger", "test", "kept/hook", "--body", '{"n": 0}'), code=1)
    assert unwanted["verdict"] == "filtered"
    timer = line(tenant("trigger", "test", "kept/nightly"))
    assert (timer["status"], timer["outputs"]) == ("succeeded", {"n": 2})
    assert tenant("trigger", "test", "kept/hook", "--header", "nothing").returncode == 2


def test_a_webhook_is_tried_out_as_who_knows_its_secret(
    tenant: Stack, document: Path, tmp_path: Path
) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("s3cret\n")
    wrong.write_text("guessed\n")
    stored = forking.run(["secret", "set", "slack_key"], tenant.environment, "s3cret")
    assert stored.returncode == 0, stored.stderr
    found = line(tenant("trigger", "test", "kept/signed", "--secret", str(right)))
    assert found["verdict"] == "started"
    assert tenant("trigger", "test", "kept/signed", "--secret", str(wrong)).returncode == 1
    assert tenant("trigger", "test", "kept/signed").returncode == 1
    missing = tenant("trigger", "test", "kept/signed", "--secret", str(tmp_path / "none"))
    assert missing.returncode == 2
    assert "--secret" in missing.stderr
    twice = tenant("trigger", "test", "kept/signed", "--secret", "-", "--body", "-")
    assert twice.returncode == 2


def test_keys_members_and_who_did_what(tenant: Stack) -> None:
    made = line(tenant("token", "create", "ci", "--role", "operator"))
    assert made["api_key"].startswith(f"gw_{made['prefix']}_")
    (listed,) = lines(tenant("token", "list"))
    assert "api_key" not in listed and listed["role"] == "operator"
    assert line(tenant("token", "revoke", made["token_id"]))["revoked"] is True
    assert line(tenant("token", "show", made["token_id"]))["revoked_at"]
    assert tenant("token", "create", "x", "--role", "emperor").returncode == 2

    for subject, role in (("ann", "admin"), ("bob", "viewer")):
        assert line(tenant("member", "set", subject, role))["role"] == role
    assert [each["subject"] for each in lines(tenant("member", "list"))] == ["ann", "bob"]
    assert line(tenant("member", "remove", "bob"))["removed"] is True
    assert tenant("member", "remove", "ann").returncode == 1

    done = lines(tenant("audit", "list", "--actor", "cli", "--limit", "50"))
    assert {"tokens.create", "tokens.revoke"} & {each["action"] for each in done}
    action = done[0]["action"]
    chosen = lines(tenant("audit", "list", "--action", action, "--limit", "1"))
    assert [each["action"] for each in chosen] == [action]


def on_terminal(stack: Stack, *arguments: str) -> tuple[int, str]:
    """The exit code and what a person sees, without styles."""
    main, other = pty.openpty()
    terminal = {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    process = Forked(
        ["-m", "graphwright", *arguments], {**stack.environment, **terminal}, other, other, other
    )
    os.close(other)
    seen = b""
    while True:
        try:
            part = os.read(main, 65_536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        seen += part
    os.close(main)
    return process.wait(), re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())


def test_a_person_sees_a_tree(tenant: Stack, document: Path) -> None:
    code, seen = on_terminal(tenant, "run", "start", "kept", "--param", "n=3", "--watch")
    assert code == 0, seen
    assert "✓ first" in seen and "✓ second" in seen and "2/2 nodes" in seen
    assert '{"n": 4}' in seen.splitlines()[-1]


def test_a_person_may_ask_for_json(tenant: Stack, document: Path) -> None:
    code, table = on_terminal(tenant, "graph", "list")
    assert code == 0 and table.split()[0] == "name"
    code, text = on_terminal(tenant, "graph", "list", "--json")
    assert code == 0 and json.loads(text.splitlines()[0])["name"]
    said = tenant("graph", "show", "absent", "--json")
    assert said.returncode == 1
    assert json.loads(said.stderr)["code"] == "not_found"
    code, diff = on_terminal(tenant, "graph", "diff", "kept", "--from", "1", "--to", "1")
    assert code == 0 and "1 → 1" in diff


def test_the_shell_completes_commands(tenant: Stack) -> None:
    said = subprocess.run(
        [str(Path(sys.executable).with_name("graphwright"))],
        env={
            **tenant.environment,
            "_GRAPHWRIGHT_COMPLETE": "complete_bash",
            "COMP_WORDS": "graphwright gr",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "graph" in said.stdout.split()
