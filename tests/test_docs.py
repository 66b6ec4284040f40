"""The documentation keeps pace with the code."""

import json
import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

import node_types
from foundation.settings import Limits, Settings
from graph_defs.catalogue import Catalogue
from graph_defs.document import json_schema

ROOT = Path(__file__).parent.parent
FIELDS = [(model, name) for model in (Settings, Limits) for name in model.model_fields]


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=[name for _, name in FIELDS])
def test_every_setting_is_described_with_its_default(model: type[BaseSettings], name: str) -> None:
    setting = model.model_fields[name]
    default = f"`{setting.default}`" if setting.default not in ("", ()) else "–"
    row = f"| `GRAPHWRIGHT_{name.upper()}` | {default} | {setting.description} |"
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    assert row in page.splitlines()


def test_no_setting_is_described_that_does_not_exist() -> None:
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    described = re.findall(r"^\| `GRAPHWRIGHT_(\w+)`", page, re.MULTILINE)
    assert sorted(described) == sorted(name.upper() for _, name in FIELDS)


@pytest.mark.parametrize(
    "page",
    sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    inside = [link for link in links if "://" not in link]
    assert [link for link in inside if not (page.parent / link).exists()] == []


def test_the_published_schema_is_the_one_that_the_command_prints() -> None:
    published = json.loads((ROOT / "docs" / "graph.schema.json").read_text("utf-8"))
    assert published == json_schema(Catalogue.from_packages(node_types))


def test_every_make_target_has_help() -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert sorted(phony.split()) == sorted(re.findall(r"^([\w-]+):.*## ", text, re.MULTILINE))
