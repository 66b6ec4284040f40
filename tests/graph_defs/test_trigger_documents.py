"""Triggers and notices in documents: what is taken, and every fault of what is not."""

from typing import Any

import jsonschema
import pytest

import node_types
from foundation.settings import Limits
from graph_defs.catalogue import Catalogue
from graph_defs.document import json_schema
from graph_defs.json_values import JsonObject
from graph_defs.validation import find_faults, validate

CATALOGUE = Catalogue.from_packages(node_types)
SCHEMA = jsonschema.Draft202012Validator(json_schema(CATALOGUE))

HOOK: JsonObject = {"type": "webhook", "scheme": "hmac", "secret": "KEY"}
OPEN: JsonObject = {"type": "webhook", "scheme": "none"}
CRON: JsonObject = {"type": "timer", "cron": "30 4 * * MON-FRI"}
EVERY: JsonObject = {"type": "timer", "every": "15m"}
GRAPH: JsonObject = {"on": ["failed"], "graph": "alarm"}
CALL: JsonObject = {"on": ["failed"], "url": "https://example.org/x", "secret": "KEY"}


def document(**fields: Any) -> JsonObject:
    return {
        "apiVersion": "graphwright/v1",
        "kind": "Graph",
        "metadata": {"name": "tested"},
        "nodes": {"a": {"type": "data.transform", "with": {"value": 1}}},
        **fields,
    }


def faults_of(value: JsonObject) -> list[tuple[str, str]]:
    found = find_faults(value, CATALOGUE, Limits())
    for fault in found:
        assert fault.message.endswith(".")
    return [(fault.pointer, fault.code) for fault in found]


@pytest.mark.parametrize(
    "trigger",
    [
        HOOK,
        *({**HOOK, "scheme": scheme} for scheme in ("github", "standard-webhooks", "token")),
        *({**HOOK, "scheme": scheme} for scheme in ("stripe", "slack")),
        OPEN,
        {**OPEN, "id_header": "X-Request-Id", "dedupe": "1h"},
        {**HOOK, "scheme": "token", "header": "X-Token", "id_header": "X-Id", "dedupe": "off"},
        {
            **HOOK,
            "header": "X-Sign",
            "algorithm": "sha512",
            "encoding": "base64",
            "prefix": "v1=",
            "timestamp_header": "X-Time",
            "id_header": "X-Id",
            "dedupe": "366d",
        },
        {**HOOK, "filter": "${{ trigger.headers['x-kind'] == 'a' && size(trigger.query) > 0 }}"},
        {**HOOK, "params": {"a": 1, "b": ["${{ trigger.body.b }}", {"c": "$${{ kept }}"}]}},
        {**HOOK, "params": "${{ trigger.body }}"},
        CRON,
        EVERY,
        {**CRON, "cron": "@daily", "timezone": "Europe/Berlin", "catch_up": "latest"},
        {**CRON, "cron": "0 0 29 2 *"},
        {**EVERY, "jitter": "30s", "catch_up": "all", "not_after": "2030-01-31T00:00:00Z"},
        {**EVERY, "not_after": "2030-01-31T00:00:00+01:00"},
        {**EVERY, "params": {"day": "${{ trigger.due_at }}"}},
    ],
)
def test_good_triggers(trigger: JsonObject) -> None:
    value = document(triggers={"x": trigger})
    assert faults_of(value) == []
    assert SCHEMA.is_valid(value)
    read = validate(value, CATALOGUE, Limits()).triggers["x"]
    assert read.model_dump(exclude_unset=True) == trigger


@pytest.mark.parametrize(
    "notice",
    [
        GRAPH,
        CALL,
        {**GRAPH, "on": ["succeeded", "failed", "cancelled"]},
        {**GRAPH, "params": {"error": "${{ trigger.error }}", "text": "run ${{ trigger.run_id }}"}},
        {**GRAPH, "params": "${{ trigger.outputs }}"},
        {**CALL, "url": "http://localhost:8080/"},
    ],
)
def test_good_notices(notice: JsonObject) -> None:
    value = document(notify={"x": notice})
    assert faults_of(value) == []
    assert SCHEMA.is_valid(value)
    read = validate(value, CATALOGUE, Limits()).notify["x"]
    assert read.model_dump(exclude_unset=True) == notice


MARKED = True
"""An editor sees it, by the schema; otherwise only the validation does."""


@pytest.mark.parametrize(
    ("trigger", "faults", "marked"),
    [
        ({}, [("/type", "missing_field")], MARKED),
        ({"type": "webhok"}, [("/type", "bad_value")], MARKED),
        ("github", [("", "wrong_type")], MARKED),
        ({"type": "webhook"}, [("/scheme", "missing_field")], MARKED),
        ({**HOOK, "scheme": "gitlab"}, [("/scheme", "bad_value")], MARKED),
        ({"type": "webhook", "scheme": "github"}, [("", "conflicting_fields")], not MARKED),
        ({**OPEN, "secret": "KEY"}, [("", "conflicting_fields")], not MARKED),
        ({**HOOK, "scheme": "slack", "header": "X"}, [("", "conflicting_fields")], not MARKED),
        ({**OPEN, "algorithm": "sha1"}, [("", "conflicting_fields")], not MARKED),
        ({**HOOK, "scheme": "stripe", "id_header": "X"}, [("", "conflicting_fields")], not MARKED),
        ({**HOOK, "secret": "two words"}, [("/secret", "bad_name")], MARKED),
        ({**HOOK, "header": "X Y"}, [("/header", "bad_value")], MARKED),
        ({**HOOK, "algorithm": "md5"}, [("/algorithm", "bad_value")], MARKED),
        ({**HOOK, "prefix": "x" * 33}, [("/prefix", "bad_value")], MARKED),
        ({**HOOK, "cron": "* * * * *"}, [("/cron", "unknown_field")], MARKED),
        ({**HOOK, "filter": True}, [("/filter", "wrong_type")], MARKED),
        ({**HOOK, "filter": "trigger.body.n > 1"}, [("/filter", "bad_value")], not MARKED),
        ({**HOOK, "filter": "${{ true }} "}, [("/filter", "bad_value")], not MARKED),
        ({**HOOK, "filter": "${{ trigger. }}"}, [("/filter", "expression_invalid")], not MARKED),
        ({**HOOK, "filter": "${{ params.n }}"}, [("/filter", "not_known_yet")], not MARKED),
        ({**HOOK, "params": [1]}, [("/params", "wrong_type")], MARKED),
        ({**HOOK, "params": "all"}, [("/params", "bad_value")], not MARKED),
        (
            {**HOOK, "params": {"a": ["${{ run.id }}"], "b/c": {"${{ secrets.KEY }}": 1}}},
            [
                ("/params/a/0", "not_known_yet"),
                ("/params/b~1c/${{ secrets.KEY }}", "secret_not_allowed"),
            ],
            not MARKED,
        ),
        ({"type": "timer"}, [("", "conflicting_fields")], not MARKED),
        ({**CRON, "every": "1h"}, [("", "conflicting_fields")], not MARKED),
        ({**EVERY, "timezone": "UTC"}, [("", "conflicting_fields")], not MARKED),
        ({**CRON, "cron": "30 4 * *"}, [("/cron", "bad_timer")], not MARKED),
        ({**CRON, "cron": "61 4 * * *"}, [("/cron", "bad_timer")], not MARKED),
        ({**CRON, "cron": "0 0 30 2 *"}, [("/cron", "bad_timer")], not MARKED),
        ({**CRON, "cron": ""}, [("/cron", "bad_value")], MARKED),
        ({**CRON, "timezone": "Europe/Belrin"}, [("/timezone", "bad_timer")], not MARKED),
        ({**EVERY, "every": "0m"}, [("/every", "bad_value")], MARKED),
        ({**EVERY, "every": "367d"}, [("/every", "bad_value")], not MARKED),
        ({**EVERY, "every": 900}, [("/every", "wrong_type")], MARKED),
        ({**EVERY, "jitter": "1.5m"}, [("/jitter", "bad_value")], MARKED),
        ({**EVERY, "not_after": "2030-01-31"}, [("/not_after", "bad_value")], not MARKED),
        ({**EVERY, "catch_up": "some"}, [("/catch_up", "bad_value")], MARKED),
        ({**EVERY, "secret": "KEY"}, [("/secret", "unknown_field")], MARKED),
    ],
)
def test_bad_triggers(trigger: Any, faults: list[tuple[str, str]], marked: bool) -> None:
    value = document(triggers={"good": CRON, "x": trigger})
    assert faults_of(value) == [(f"/triggers/x{at}", code) for at, code in faults]
    assert SCHEMA.is_valid(value) != marked


@pytest.mark.parametrize(
    ("notice", "faults", "marked"),
    [
        ({"graph": "alarm"}, [("/on", "missing_field")], MARKED),
        ({**GRAPH, "on": []}, [("/on", "bad_value")], MARKED),
        ({**GRAPH, "on": "failed"}, [("/on", "wrong_type")], MARKED),
        ({**GRAPH, "on": ["failed", "lost"]}, [("/on/1", "bad_value")], MARKED),
        ({**GRAPH, "graph": "The Alarm"}, [("/graph", "bad_name")], MARKED),
        ({**CALL, "url": "ftp://example.org"}, [("/url", "bad_value")], MARKED),
        ({**GRAPH, "when": "failed"}, [("/when", "unknown_field")], MARKED),
        ({"on": ["failed"]}, [("", "conflicting_fields")], not MARKED),
        ({**CALL, "graph": "alarm"}, [("", "conflicting_fields")], not MARKED),
        ({**GRAPH, "secret": "KEY"}, [("", "conflicting_fields")], not MARKED),
        ({**CALL, "params": {}}, [("", "conflicting_fields")], not MARKED),
        (
            {"on": ["failed"], "url": "https://example.org"},
            [("", "conflicting_fields")],
            not MARKED,
        ),
        ({**GRAPH, "params": "all"}, [("/params", "bad_value")], not MARKED),
        (
            {**GRAPH, "params": {"n": "${{ nodes.a.output + params.n }}"}},
            [("/params/n", "not_known_yet")] * 2,
            not MARKED,
        ),
    ],
)
def test_bad_notices(notice: Any, faults: list[tuple[str, str]], marked: bool) -> None:
    value = document(notify={"good": CALL, "x": notice})
    assert faults_of(value) == [(f"/notify/x{at}", code) for at, code in faults]
    assert SCHEMA.is_valid(value) != marked


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"triggers": [HOOK]}, ("/triggers", "wrong_type")),
        ({"triggers": {"a b": HOOK}}, ("/triggers/a b", "bad_name")),
        ({"notify": {"1st": CALL}}, ("/notify/1st", "bad_name")),
        ({"triggers": {f"t{n}": CRON for n in range(101)}}, ("/triggers", "bad_value")),
        ({"notify": {f"n{n}": CALL for n in range(17)}}, ("/notify", "bad_value")),
    ],
)
def test_bad_maps_of_them(fields: dict[str, Any], fault: tuple[str, str]) -> None:
    value = document(**fields)
    assert faults_of(value) == [fault]
    assert not SCHEMA.is_valid(value)


def test_words_of_expressions_are_no_names() -> None:
    value = document(triggers={"in": CRON}, notify={"true": CALL})
    assert faults_of(value) == [
        ("/triggers/in", "reserved_name"),
        ("/notify/true", "reserved_name"),
    ]


def test_faults_of_fields_do_not_hide_those_of_expressions() -> None:
    hook = {**HOOK, "scheme": "gitlab", "filter": "${{ run.id }}", "params": {"n": "${{ 1 + }}"}}
    value = document(triggers={"x": hook}, notify={"x": {"params": {"n": "${{ nodes.a }}"}}})
    assert sorted(faults_of(value)) == [
        ("/notify/x/on", "missing_field"),
        ("/notify/x/params/n", "not_known_yet"),
        ("/triggers/x/filter", "not_known_yet"),
        ("/triggers/x/params/n", "expression_invalid"),
        ("/triggers/x/scheme", "bad_value"),
    ]
