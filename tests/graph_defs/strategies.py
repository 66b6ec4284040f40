"""JSON values and graphs for property tests."""

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from graph_defs.json_values import MAX_EXACT_INTEGER, Json, JsonObject

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
numbers = st.one_of(
    st.integers(-MAX_EXACT_INTEGER, MAX_EXACT_INTEGER),
    st.floats(-1e15, 1e15),
    st.floats(1e21, 1e300),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values: SearchStrategy[Json] = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(texts, inner, max_size=5)),
    max_leaves=20,
)
objects: SearchStrategy[JsonObject] = st.dictionaries(texts, values, max_size=5)


@st.composite
def acyclic_needs(draw: DrawFn, max_nodes: int = 25) -> dict[str, list[str]]:
    """Nodes and what they need, in an order that is not that of their names, without cycles."""
    count = draw(st.integers(1, max_nodes))
    names = draw(st.permutations([f"n{number}" for number in range(count)]))
    return {
        name: draw(st.lists(st.sampled_from(names[:index]), unique=True)) if index else []
        for index, name in enumerate(names)
    }


def graph_of(needs: dict[str, list[str]]) -> JsonObject:
    """A document whose nodes refer to each node that they need."""
    nodes: JsonObject = {}
    for name, needed in needs.items():
        value: list[Json] = [f"${{{{ nodes.{each}.output }}}}" for each in needed]
        listed: list[Json] = [*needed]
        nodes[name] = {"type": "data.transform", "needs": listed, "with": {"value": value}}
    return {
        "apiVersion": "graphwright/v1",
        "kind": "Graph",
        "metadata": {"name": "generated"},
        "nodes": nodes,
    }
