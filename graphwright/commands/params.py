"""A run's input on the command line."""

import json
from typing import Any, cast

import typer


def no_json(name: str) -> None:
    """For NaN and the like, which Python reads and JSON does not have."""
    raise ValueError(f"{name} is no JSON")


def params_option(text: str) -> dict[str, Any]:
    try:
        value: object = json.loads(text, parse_constant=no_json)
    except ValueError as error:
        raise typer.BadParameter(f"no JSON: {error}") from error
    if not isinstance(value, dict):
        raise typer.BadParameter("must be a JSON object")
    return cast("dict[str, Any]", value)


def named(given: list[str]) -> dict[str, Any]:
    """``NAME=VALUE`` each; what is no JSON is a text."""
    found: dict[str, Any] = {}
    for each in given:
        name, separator, text = each.partition("=")
        if not (name and separator):
            raise typer.BadParameter(f"{each!r} is not NAME=JSON", param_hint="--param")
        try:
            found[name] = json.loads(text, parse_constant=no_json)
        except ValueError:
            found[name] = text
    return found
