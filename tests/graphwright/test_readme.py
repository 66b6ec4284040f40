"""The README's commands, as they stand there, against a running stack."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.graphwright.conftest import Stack

ROOT = Path(__file__).parent.parent.parent
pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]


def test_the_walk_through_works(stack: Stack, tmp_path: Path) -> None:
    blocks = re.findall(
        r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == 6
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    page = 'curl -sS "$API/runs/$RUN/events?limit=1000" -H "Authorization: Bearer $TOKEN"'
    done = subprocess.run(
        ["bash", "-eu", "-c", "\n".join([*blocks, "echo", page])],
        cwd=tmp_path,
        env={**stack.environment, "GRAPHWRIGHT_API_URL": stack.status()["api"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *_, run, page = done.stdout.splitlines()
    assert json.loads(run)["status"] == "succeeded"
    assert json.loads(run)["outputs"] == {"greeting": "Hello, moon!", "letters": 12}

    stored = [event["id"] for event in json.loads(page)["items"]]
    first, rest = (_ids(tmp_path / name) for name in ("first.txt", "rest.txt"))
    assert len(first) == 3
    assert first + rest == stored
    assert json.loads(page)["items"][-1]["type"] == "run.succeeded"


def test_the_document_at_the_top_is_valid(tmp_path: Path, stack: Stack) -> None:
    (document,) = re.findall(
        r"^```yaml\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    path = tmp_path / "top.yaml"
    path.write_text(document, "utf-8")
    said = stack("graph", "validate", str(path))
    assert said.returncode == 0, said.stderr


def _ids(stream: Path) -> list[str]:
    return re.findall(r"^id: *(\S+)\r?$", stream.read_text("utf-8"), re.MULTILINE)
