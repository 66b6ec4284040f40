"""What the ends of a version's runs set off, in short: each of its runs carries this with it."""

from graph_defs.json_values import JsonObject


def notified(document: JsonObject) -> JsonObject | None:
    """By how a run ends, the entries of the document's ``notify`` that want to know.

    An entry is its name and what it asks for: ``{"failed": {"repair": "graph", "tell": "url"}}``.
    None where there are none. The document is valid.
    """
    found: dict[str, JsonObject] = {}
    entries = document.get("notify") or {}
    assert isinstance(entries, dict)
    for name, entry in entries.items():
        assert isinstance(entry, dict)
        ends = entry["on"]
        assert isinstance(ends, list)
        for end in ends:
            found.setdefault(str(end), {})[name] = "graph" if entry.get("graph") else "url"
    return {**found} or None
