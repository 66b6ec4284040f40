"""What an operator allows steps."""

from typing import Any

import pytest
from pydantic import ValidationError

from graph_defs.images import check_pattern, image_allowed
from graph_defs.step_policy import DockerSteps, KubernetesSteps

DIGEST = f"sha256:{'ab' * 32}"


@pytest.mark.parametrize(
    ("pattern", "images"),
    [
        ("python", ["python", "python:3.12", f"python@{DIGEST}", "docker.io/library/python:3"]),
        ("docker.io/python", ["python", "index.docker.io/library/python", "library/python"]),
        ("python:*", ["python:3.12", "python"]),
        ("python:3.*", ["python:3.12", "python:3.12-slim"]),
        ("python:latest", ["python", "python:latest"]),
        (f"python@{DIGEST}", [f"python@{DIGEST}", f"python:3@{DIGEST}"]),
        (f"python:3@{DIGEST}", [f"python:3@{DIGEST}"]),
        ("*", ["python:3.12", "docker.io/python"]),
        ("acme-*", ["acme-x", "acme-x:1"]),
        ("acme/*", ["acme/x", "acme/x:1"]),
        ("docker.io/*", ["acme/x:1", "python"]),
        ("registry.example.org/*", ["registry.example.org/x", "registry.example.org/a/b/c:1"]),
        ("Registry.example.org/x", ["registry.example.org/x", "REGISTRY.example.org/x"]),
        ("registry.example.org/team/*", ["registry.example.org/team/a/b:1"]),
        ("registry.example.org/*/etl", ["registry.example.org/team/etl:1"]),
        ("localhost:5000/x-*:v*", ["localhost:5000/x-1:v2"]),
        ("localhost/mine/*", ["localhost/mine/a:1"]),
    ],
)
def test_images_that_a_pattern_names(pattern: str, images: list[str]) -> None:
    check_pattern(pattern)
    assert [image for image in images if not image_allowed(image, ["other", pattern])] == []


@pytest.mark.parametrize(
    ("pattern", "images"),
    [
        ("python:*", ["python:5000/evil/x", "python:5000/evil/x:1", "evil/python:1"]),
        ("acme-*", ["acme-x.evil.com/p:1", "acme-x/p", "acme-x:5000/p", "localhost/acme-x"]),
        ("acme-*/p", ["acme-x.evil.com/p", "acme-x:80/p"]),
        ("python:3.12", [f"python:3.12@{DIGEST}", "python:3.12-slim", "python", "evil.com/python"]),
        (f"python@{DIGEST}", ["python", f"python@sha256:{'cd' * 32}"]),
        (f"python:3@{DIGEST}", [f"python:4@{DIGEST}"]),
        ("*", ["acme/x", "evil.com/python", "4bcff63911fc", DIGEST, "sha256:4bcff6"]),
        ("acme/*", ["acme", "acme/../evil/x", "evil.com/acme/x"]),
        ("docker.io/*", ["docker.io.evil.com/x", "docker.io:5000/x", "evil.com/docker.io/x"]),
        (
            "registry.example.org/team/*",
            [
                "registry.example.org/team",
                "registry.example.org/teams/x",
                "registry.example.org/team/",
                "registry.example.org/team/../evil",
                "registry.example.org/team//x",
                "registry.example.org:5000/team/x",
                "registry.example.org/team/x@evil.com/y",
                "registry.example.org/team/x:1:2",
                "registry.example.org/team/x:",
                "registry.example.org/team/x\n",
            ],
        ),
        ("registry.example.org/*/etl", ["registry.example.org/a/b/etl"]),
        ("xindex.docker.io/a", ["a", "xdocker.io/a"]),
    ],
)
def test_images_that_a_pattern_does_not_name(pattern: str, images: list[str]) -> None:
    check_pattern(pattern)
    assert [image for image in images if image_allowed(image, [pattern])] == []


@pytest.mark.parametrize(
    "pattern",
    [
        "python:3.?",
        "python:[0-9]",
        "*.example.org/x",
        "registry*:5000/x",
        "python@sha256:*",
        "a/../b",
        "a//b",
        "/a",
        "a/",
        "Python",
        "python:",
        "python@",
        "http://example.org/x",
        " ",
    ],
)
def test_no_patterns(pattern: str) -> None:
    with pytest.raises(ValidationError, match="is no pattern of images"):
        DockerSteps(images=[pattern])


@pytest.mark.parametrize("network", ["host", "container:postgres", "ns:/proc/1/ns/net", ""])
def test_networks_that_are_not_a_steps_own(network: str) -> None:
    assert DockerSteps(network="steps").network == "steps"
    with pytest.raises(ValidationError):
        DockerSteps(network=network)


@pytest.mark.parametrize("wrong", [{"max_memory": "1m"}, {"max_cpu": "0.0000001m"}])
def test_bounds_that_platforms_would_take_for_none(wrong: dict[str, Any]) -> None:
    for model in (DockerSteps, KubernetesSteps):
        with pytest.raises(ValidationError, match="no amount"):
            model.model_validate(
                {"namespace": "steps", **wrong} if model is KubernetesSteps else wrong
            )
