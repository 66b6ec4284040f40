"""Peers, each in an environment of its own below the user's cache folder, at a pinned version."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_SECONDS: Final = 600
NODE: Final = {"node": "22.23.3"}
"""The package with the Node.js on which the peers run."""


class NotInstalled(Exception):
    """A peer cannot be had here; the text says why."""


def cache() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "graphwright-bench"


def python_environment(name: str, requirements: Sequence[str]) -> Path:
    """The Python of a virtual environment with these packages. Raises NotInstalled."""
    folder = cache() / f"{name}-{_tag(requirements)}"
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        print(f"installing {' '.join(requirements)}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        _run([python, "-m", "pip", "install", "-q", *requirements])
        (folder / "installed").touch()
    return python


def node_environment(
    name: str, packages: Mapping[str, str], overrides: Mapping[str, str] | None = None
) -> Path:
    """The folder of a ``node_modules`` with these packages. Raises NotInstalled.

    Needs npm to begin with; the Node.js that runs the peers is itself a package, ``node``.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise NotInstalled("npm is missing")
    wanted = dict(packages)
    folder = cache() / f"{name}-{_tag(sorted(f'{key}@{value}' for key, value in wanted.items()))}"
    if not (folder / "installed").exists():
        print(f"installing {' '.join(packages)}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        manifest = {"private": True, "dependencies": wanted, "overrides": dict(overrides or {})}
        (folder / "package.json").write_text(json.dumps(manifest), "utf-8")
        _run([npm, "install", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder)
        # The package `node` fetches its program in a script of its own.
        if "node" in wanted:
            _run([npm, "rebuild", "node", "--foreground-scripts"], cwd=folder)
        (folder / "installed").touch()
    return folder


def _tag(requirements: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(requirements).encode()).hexdigest()[:12]


def _run(command: Sequence[str | Path], cwd: Path | None = None) -> None:
    try:
        subprocess.run(
            command, cwd=cwd, check=True, capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout).strip().splitlines() or ["no reason given"]
        raise NotInstalled(f"not installed: {lines[-1]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"not installed: {error}") from error
