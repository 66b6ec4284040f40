"""Names of images, and patterns that operators allow them by.

``[registry/]repository[:tag][@digest]``, by the grammar of `Docker's references
<https://pkg.go.dev/github.com/distribution/reference>`_: what comes before the first ``/`` is a
registry if it has a ``.`` or a ``:``, or is ``localhost``. Without one the image is Docker Hub's.
"""

import re
from dataclasses import dataclass
from typing import Final

_HUB: Final = "docker.io"
_OFFICIAL: Final = "library/"
"""What Docker Hub's images of one word are below."""
_LATEST: Final = "latest"

_HOST: Final = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_COMPONENT: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REGISTRY: Final = re.compile(rf"{_HOST}(?:\.{_HOST})*(?::[0-9]+)?")
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST: Final = re.compile(r"[A-Za-z0-9]+(?:[-_+.][A-Za-z0-9]+)*:[0-9a-fA-F]{32,}")
_LOCAL_ID: Final = re.compile(r"(?:sha256:)?[0-9a-f]+")
"""By which Docker finds any image that it has."""


@dataclass(frozen=True, slots=True)
class _Name:
    registry: str
    repository: str
    tag: str
    digest: str


def image_allowed(image: str, patterns: list[str]) -> bool:
    """Whether one of the patterns, each one that ``check_pattern`` lets pass, names the image.

    What is no image's name, and what may be an id, is not allowed.
    """
    if _LOCAL_ID.fullmatch(image):
        return False
    try:
        name = _parsed(image)
        _check(name)
    except ValueError:
        return False
    return any(_matches(name, _parsed(pattern)) for pattern in patterns)


def check_pattern(pattern: str) -> None:
    """Raises ValueError where it is no pattern.

    It is an image's name, with ``*`` for any characters but ``/`` in repository and tag; ``/*`` at
    the end of the repository stands for all that is below. Without a tag it is for all tags and
    digests.
    """
    name = _parsed(pattern)
    if "*" in name.registry + name.digest:
        raise ValueError("`*` may be in the repository and in the tag")
    repository, tag = (re.sub(r"\*+", "a", part) for part in (name.repository, name.tag))
    _check(_Name(name.registry, repository, tag, name.digest))


def _parsed(text: str) -> _Name:
    """The parts, not looked at; those that are absent are empty."""
    named, _, digest = text.partition("@")
    path, slash, last = named.rpartition("/")
    last, colon, tag = last.partition(":")
    if (colon and not tag) or ("@" in text and not digest):
        raise ValueError("a part of it is empty")
    named = f"{path}{slash}{last}"
    first, slash, rest = named.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        registry, named = first.lower(), rest
        registry = _HUB if registry == f"index.{_HUB}" else registry
    else:
        registry, slash = _HUB, ""
    all_of_it = slash and named == "*"
    if registry == _HUB and "/" not in named and not all_of_it:
        named = f"{_OFFICIAL}{named}"
    return _Name(registry, named, tag, digest)


def _check(name: _Name) -> None:
    for part, grammar in (
        (name.registry, _REGISTRY),
        (name.repository, _REPOSITORY),
        (name.tag or _LATEST, _TAG),
    ):
        if not grammar.fullmatch(part):
            raise ValueError(f"`{part}` is no part of an image's name")
    if name.digest and not _DIGEST.fullmatch(name.digest):
        raise ValueError(f"`{name.digest}` is no digest")


def _matches(image: _Name, pattern: _Name) -> bool:
    if image.registry != pattern.registry or not _repository_matches(image, pattern):
        return False
    if pattern.digest and image.digest != pattern.digest:
        return False
    if not pattern.tag:
        return True
    if image.digest and not pattern.digest:
        return False  # what runs is what the digest says, whatever the tag is
    return _like(image.tag or _LATEST, pattern.tag)


def _repository_matches(image: _Name, pattern: _Name) -> bool:
    above = pattern.repository.removesuffix("*")
    if f"/{above}".endswith("/") and above != pattern.repository:  # it names all that is below
        return bool(re.fullmatch(f"{_regex(above)}.+", image.repository))
    return _like(image.repository, pattern.repository)


def _like(text: str, pattern: str) -> bool:
    return bool(re.fullmatch(_regex(pattern), text))


def _regex(pattern: str) -> str:
    return "[^/]*".join(map(re.escape, re.split(r"\*+", pattern)))
