"""Graphs: publish, read, compare, go back; drafts; what nodes there are."""

import json
from collections.abc import Sequence
from typing import Any, Literal

from graphwright.client.calls import (
    Call,
    Listing,
    Stream,
    given,
    matching,
    nothing,
    segment,
    was_created,
    with_etag,
)
from graphwright.client.resource import Resource, S, call, listing, stream
from graphwright.client.types import (
    CheckedDraft,
    Diff,
    Draft,
    Graph,
    GraphDetail,
    GraphVersion,
    GraphVersionDetail,
    NodeType,
    NodeTypeDetail,
    RunStatus,
    ValidDocument,
)

_JSON, _YAML = "application/json", "application/yaml"


def _document(document: dict[str, Any] | str | bytes) -> tuple[bytes, dict[str, str]]:
    """A body and its headers. A text is YAML, which JSON is too."""
    if isinstance(document, dict):
        return json.dumps(document).encode(), {"Content-Type": _JSON}
    content = document.encode() if isinstance(document, str) else document
    return content, {"Content-Type": _YAML}


class Graphs(Resource[S]):
    """``graph`` is a graph's name or id. Where ``if_match`` is given and the graph has another
    ``etag`` by now, nothing is changed and Changed is raised."""

    @call
    def apply(
        self, document: dict[str, Any] | str | bytes, *, if_match: str | None = None
    ) -> Call[tuple[Graph, bool]]:
        """Create or update a graph and publish it; the graph, and whether that made a version.

        ``document`` is a dict, or YAML or JSON as text. Raises Invalid with every fault.
        """
        content, headers = _document(document)
        headers |= matching(if_match)
        return Call("POST", "/graphs", was_created, content=content, headers=headers)

    @call
    def validate(self, document: dict[str, Any] | str | bytes) -> Call[ValidDocument]:
        """Store nothing; raises Invalid with every fault."""
        content, headers = _document(document)
        return Call("POST", "/graphs/validate", content=content, headers=headers)

    @listing
    def list(self, *, label: dict[str, str] | None = None) -> Listing[Graph]:
        """Newest first: those that have all of these labels."""
        return Listing("/graphs", given(label=label))

    @call
    def get(self, graph: str) -> Call[GraphDetail]:
        return Call("GET", f"/graphs/{segment(graph)}", with_etag)

    @call
    def delete(self, graph: str, *, if_match: str | None = None) -> Call[None]:
        """Only without unfinished runs, else Conflict is raised; its runs can still be read."""
        headers = matching(if_match)
        return Call("DELETE", f"/graphs/{segment(graph)}", nothing, headers=headers)

    @call
    def pause(self, graph: str) -> Call[Graph]:
        """Keep its runs queued."""
        return Call("POST", f"/graphs/{segment(graph)}/pause")

    @call
    def resume(self, graph: str) -> Call[Graph]:
        return Call("POST", f"/graphs/{segment(graph)}/resume")

    @listing
    def versions(self, graph: str) -> Listing[GraphVersion]:
        """Newest first."""
        return Listing(f"/graphs/{segment(graph)}/versions")

    @call
    def version(self, graph: str, version: int) -> Call[GraphVersionDetail]:
        return Call("GET", f"/graphs/{segment(graph)}/versions/{version}")

    @call
    def rollback(self, graph: str, version: int, *, if_match: str | None = None) -> Call[Graph]:
        """Publish an earlier version again."""
        path = f"/graphs/{segment(graph)}/rollback"
        headers = matching(if_match)
        return Call("POST", path, with_etag, json={"version": version}, headers=headers)

    @call
    def diff(self, graph: str, from_version: int, to_version: int | Literal["draft"]) -> Call[Diff]:
        """What makes the second of the first."""
        query = {"from": str(from_version), "to": str(to_version)}
        return Call("GET", f"/graphs/{segment(graph)}/diff", query=query)

    @call
    def draft(self, graph: str) -> Call[Draft]:
        return Call("GET", f"/graphs/{segment(graph)}/draft", with_etag)

    @call
    def put_draft(
        self,
        graph: str,
        document: dict[str, Any] | str | bytes,
        *,
        if_match: str | None = None,
    ) -> Call[CheckedDraft]:
        """Keep a document that is to be published later; it may still have faults."""
        content, headers = _document(document)
        headers |= matching(if_match)
        path = f"/graphs/{segment(graph)}/draft"
        return Call("PUT", path, with_etag, content=content, headers=headers)

    @call
    def delete_draft(self, graph: str) -> Call[None]:
        return Call("DELETE", f"/graphs/{segment(graph)}/draft", nothing)

    @call
    def publish_draft(self, graph: str, *, if_match: str | None = None) -> Call[tuple[Graph, bool]]:
        """As ``apply`` with the draft's document."""
        path = f"/graphs/{segment(graph)}/publish"
        return Call("POST", path, was_created, headers=matching(if_match))

    @stream
    def events(
        self,
        graph: str,
        *,
        status: RunStatus | Sequence[RunStatus] | None = None,
        type: str | Sequence[str] | None = None,  # noqa: A002
        after: str | None = None,
    ) -> Stream:
        """The events of the graph's runs as they happen, without an end: of runs of these statuses,
        of these types. As those of a run, it goes on over broken connections."""
        query = given(status=status, type=type)
        return Stream(f"/graphs/{segment(graph)}/events", query, after)


class NodeTypes(Resource[S]):
    """What nodes can be."""

    @listing
    def list(self) -> Listing[NodeType]:
        return Listing("/node-types", paged=False)

    @call
    def get(self, type: str) -> Call[NodeTypeDetail]:  # noqa: A002 - the field's name
        return Call("GET", f"/node-types/{segment(type)}")
