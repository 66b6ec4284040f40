"""The page on observability and the alerts keep pace with what is counted."""

import re
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import REGISTRY

from dynamic_jobs.queueing.depth import QueueDepth
from foundation.telemetry.metrics import HTTP_REQUESTS

DOCS = Path(__file__).parent.parent.parent / "docs"
_NAME = re.compile(r"graphwright_\w+")
_PARTS = re.compile(r"_(bucket|sum|count|total)$")


def told() -> dict[str, str]:
    """The names of all metrics that processes of ours tell, with their types."""
    assert HTTP_REQUESTS, "which registers all of them"
    families = [*REGISTRY.collect(), *QueueDepth("").describe()]
    return {each.name: each.type for each in families if each.name.startswith("graphwright_")}


def test_every_metric_is_described_and_no_other() -> None:
    page = (DOCS / "observability.md").read_text("utf-8")
    described = re.findall(r"^\| `(graphwright_\w+)`", page, re.MULTILINE)
    expected = [f"{name}_total" if kind == "counter" else name for name, kind in told().items()]
    assert sorted(described) == sorted(expected)


def test_alerts_ask_for_metrics_that_exist() -> None:
    text = (DOCS / "monitoring" / "alerts.yaml").read_text("utf-8")
    asked = {_PARTS.sub("", name) for name in _NAME.findall(text)}
    assert asked
    assert asked <= told().keys()


def test_every_alert_says_what_it_means() -> None:
    for name in ("alerts.yaml", "prometheus.yaml"):
        read: dict[str, Any] = yaml.safe_load((DOCS / "monitoring" / name).read_text("utf-8"))
        assert read
        for group in read.get("groups", []):
            for rule in group["rules"]:
                assert rule.keys() == {"alert", "expr", "for", "annotations"}
                assert rule["annotations"]["summary"]
