"""How large a step that is an image may be."""

from typing import Any

import pytest

import node_types
from dynamic_jobs.platforms.base import StepNotAllowed
from dynamic_jobs.platforms.images import bounded
from foundation.settings import Limits
from graph_defs.catalogue import Catalogue
from graph_defs.json_values import JsonObject
from graph_defs.step_policy import ImageSteps
from graph_defs.validation import find_faults
from node_types.support.steps import ImageStep

CATALOGUE = Catalogue.from_packages(node_types)


def step(**given: Any) -> ImageStep:
    return ImageStep.model_validate({"image": "python", **given})


def test_a_step_that_asks_for_nothing_gets_what_is_usual_within_the_bound() -> None:
    small = ImageSteps(images=["python"], max_cpu="500m", max_memory="64Mi")
    large = ImageSteps(images=["python"], max_cpu="8", max_memory="8Gi")
    assert [(s.cpu, s.memory) for s in (bounded(step(), small), bounded(step(), large))] == [
        ("500m", "64Mi"),
        ("1", "512Mi"),
    ]
    asked = bounded(step(cpu="100m"), small)
    assert (asked.cpu, asked.memory) == ("100m", "64Mi")


@pytest.mark.parametrize("asked", [{"cpu": "2"}, {"cpu": "1001m"}, {"memory": "1025Mi"}])
def test_a_step_that_asks_for_too_much_does_not_start(asked: dict[str, Any]) -> None:
    with pytest.raises(StepNotAllowed, match="may have"):
        bounded(step(**asked), ImageSteps(images=["python"]))


def test_an_image_that_is_not_allowed_does_not_start() -> None:
    with pytest.raises(StepNotAllowed, match="does not allow the image"):
        bounded(step(), ImageSteps(images=["python:3.12"]))


@pytest.mark.parametrize(
    "tiny", [{"memory": "500m"}, {"memory": "1m"}, {"cpu": "0.0000001m"}, {"cpu": "5m"}]
)
def test_a_step_cannot_ask_for_less_than_any_platform_gives(tiny: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no amount"):
        step(**tiny)


def test_a_graph_that_asks_for_too_little_is_not_valid() -> None:
    given: JsonObject = {"image": "python", "cpu": "5m"}
    document: JsonObject = {
        "apiVersion": "graphwright/v1",
        "kind": "Graph",
        "metadata": {"name": "tiny"},
        "isolation": "docker",
        "resources": {"cpu": "5m"},
        "nodes": {"one": {"type": "docker.run", "with": given}},
    }
    faults = {fault.pointer: fault for fault in find_faults(document, CATALOGUE, Limits())}
    for where in ("/resources/cpu", "/nodes/one/with/cpu"):
        assert "10m" in faults[where].message


def test_an_operator_cannot_allow_less_than_any_platform_gives() -> None:
    with pytest.raises(ValueError, match="less than 10m"):
        ImageSteps(images=["python"], max_cpu="5m")
