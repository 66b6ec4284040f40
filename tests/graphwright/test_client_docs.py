"""The examples of docs/client.md, as they stand there, against a running stack."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.graphwright.conftest import Stack

PAGE = Path(__file__).parent.parent.parent / "docs" / "client.md"
pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]


def test_the_examples_work(stack: Stack, tmp_path: Path) -> None:
    text = PAGE.read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 9
    script = tmp_path / "examples.py"
    script.write_text("\n".join(blocks), "utf-8")
    token = stack("token", "--tenant", "client-docs").stdout.strip()
    done = subprocess.run(
        [sys.executable, str(script)],
        env={
            **stack.environment,
            "GRAPHWRIGHT_API_URL": stack.status()["api"],
            "GRAPHWRIGHT_TOKEN": token,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outputs, count, *events, batch, status, planets, job, faults, missing, changed = (
        done.stdout.splitlines()
    )
    assert (outputs, count) == ("{'greeting': 'Hello, moon!', 'letters': 12}", "12")
    assert events[-1].split()[1] == "run.succeeded"
    assert (batch, status) == ("[11, 13, 15]", "succeeded")
    assert planets == "['Hello, Io!', 'Hello, Europa!']"
    assert (job, faults, missing) == ("succeeded", "['/params/who']", "not_found")
    assert changed == "2 remove"
