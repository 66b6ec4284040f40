"""The catalogue of node types over HTTP."""

import httpx
from jsonschema import Draft202012Validator

import node_types
from graph_defs.catalogue import Catalogue
from tests.live_api.conftest import ClientFor
from tests.live_api.test_problems import check


def test_every_node_type_is_listed_and_read(client: httpx.Client) -> None:
    catalogue = Catalogue.from_packages(node_types)
    page = client.get("/api/v1/node-types").json()
    assert [each["type"] for each in page["items"]] == list(catalogue)
    assert page["next_cursor"] is None
    for item in page["items"]:
        node_type = client.get(f"/api/v1/node-types/{item['type']}").json()
        assert {name: node_type[name] for name in item} == item
        assert item["description"] and item["version"] >= 1
        for schema in (node_type["with_schema"], node_type["output_schema"]):
            Draft202012Validator.check_schema(schema)


def test_what_one_says(client: httpx.Client) -> None:
    sleep = client.get("/api/v1/node-types/work.sleep").json()
    assert (sleep["effects"], sleep["runs_on"], sleep["secret_fields"]) == ("none", "loop", [])
    assert sleep["with_schema"]["properties"]["seconds"]["minimum"] == 0
    assert sleep["with_schema"]["additionalProperties"] is False
    request = client.get("/api/v1/node-types/http.request").json()
    assert request["effects"] == "external"
    assert "headers" in request["secret_fields"]


def test_an_unknown_one(client: httpx.Client) -> None:
    answer = client.get("/api/v1/node-types/work.slep")
    check(answer, 404, "not_found")
    assert "work.sleep" in answer.json()["hint"]
    for odd in ("%00", "a" * 2_000, "..%2F.."):
        check(client.get(f"/api/v1/node-types/{odd}"), 404, "not_found")


def test_it_is_the_same_for_all_tenants(client: httpx.Client, client_for: ClientFor) -> None:
    others = client_for("other").get("/api/v1/node-types")
    assert others.json() == client.get("/api/v1/node-types").json()
