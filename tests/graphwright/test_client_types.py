"""The client has every route of the API, and its types have what the API's OpenAPI document has."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_type_hints

import httpx
import pytest

from foundation.settings import Limits, Settings
from graphwright.client import Client, account_types, types
from graphwright.client.calls import Call, Listing, Stream
from graphwright.client.resource import Resource
from live_api.app import create_app

SCHEMAS = {
    types.Graph: "GraphModel",
    types.GraphDetail: "GraphDetail",
    types.GraphVersion: "VersionModel",
    types.GraphVersionDetail: "VersionDetail",
    types.Draft: "DraftDetail",
    types.CheckedDraft: "CheckedDraft",
    types.ValidDocument: "ValidatedModel",
    types.FaultObject: "ProblemFault",
    types.Diff: "DiffModel",
    types.NodeChanges: "NodeChangesModel",
    types.RunState: "RunState",
    types.RunLinks: "RunLinks",
    types.RunSummary: "RunSummaryModel",
    types.Run: "RunModel",
    types.Node: "NodeModel",
    types.BatchedRun: "BatchedRunState",
    types.RunRequest: "BatchedRun",
    types.Event: "EventModel",
    types.Notice: "NoticeModel",
    types.StreamToken: "StreamTokenModel",
    types.Watcher: "WatcherModel",
    types.Watchers: "WatchersModel",
    types.NodeType: "NodeTypeModel",
    types.NodeTypeDetail: "NodeTypeDetail",
    account_types.Trigger: "TriggerModel",
    account_types.Fire: "FireModel",
    account_types.Backfill: "BackfillModel",
    account_types.BackfillDetail: "BackfillDetail",
    account_types.Delivery: "DeliveryModel",
    account_types.DeliveryDetail: "DeliveryDetail",
    account_types.Secret: "SecretModel",
    account_types.ApiToken: "TokenModel",
    account_types.NewApiToken: "NewTokenModel",
    account_types.Login: "TokensModel",
    account_types.Member: "MemberModel",
    account_types.Policy: "PolicyModel",
    account_types.Usage: "UsageModel",
    account_types.Tenant: "TenantModel",
    account_types.AuditEntry: "AuditModel",
}
OPEN = {"/healthz", "/readyz"}  # not of the API below /api/v1


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    settings = Settings(state=tmp_path_factory.mktemp("state"))
    return create_app(settings, Limits()).openapi()


@pytest.mark.parametrize("kind", SCHEMAS, ids=lambda kind: kind.__name__)
def test_a_type_has_what_the_api_gives(kind: type, document: dict[str, Any]) -> None:
    described = set(document["components"]["schemas"][SCHEMAS[kind]]["properties"])
    assert set(get_type_hints(kind)) - {"etag"} == described


class Recorder:
    """A transport that sends nothing."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []

    def send(self, call: Call[Any]) -> None:
        self.made.append((call.method, call.path))

    def items(self, listing: Listing[Any]) -> None:
        self.made.append(("GET", listing.path))

    def events(self, stream: Stream) -> None:
        self.made.append(("GET", stream.path))

    def follow(self, *_: Any) -> None: ...

    polled = follow


def names(resource: object) -> list[str]:
    return dir(type(resource))


def made(client: Client) -> Iterator[tuple[str, str]]:
    """What each of the client's operations sends, with ``1`` for each argument."""
    recorder: Any = Recorder()
    resources: list[Any] = [each for each in vars(client).values() if isinstance(each, Resource)]
    assert len(resources) == 12
    for resource in resources:
        resource.transport = recorder
        for name in names(resource):
            operation: Any = getattr(resource, name)
            if not name.startswith("_") and callable(operation):
                parameters = inspect.signature(operation).parameters.values()
                wanted = [each for each in parameters if each.default is each.empty]
                operation(*["1" for each in wanted if each.name != "self"])
    yield from recorder.made


def test_every_route_has_an_operation(document: dict[str, Any]) -> None:
    with Client("http://x") as client:
        calls = {(method, f"/api/v1{path}") for method, path in made(client)}
    calls.add(("GET", "/api/v1/events"))  # Client.events
    missing = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        if path not in OPEN
        for method in operations
        if (method.upper(), re.sub(r"\{\w+\}", "1", path)) not in calls
    }
    assert missing == set()
    routes = {
        (method.upper(), re.sub(r"\{\w+\}", "1", path))
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert calls - routes == set()


def test_a_name_is_one_segment_of_a_path() -> None:
    with Client("http://x") as client:
        recorder: Any = Recorder()
        client.graphs.transport = recorder
        client.graphs.get("a/../b?c")
    ((_, path),) = recorder.made
    assert httpx.URL(f"http://x{path}").path == "/graphs/a/../b?c"
    assert path == "/graphs/a%2F..%2Fb%3Fc"
