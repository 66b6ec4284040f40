"""The cache of what was used last."""

from foundation.recent import Recent


def test_what_was_used_longest_ago_goes() -> None:
    recent = Recent[str, int](2)
    recent.keep("a", 1)
    recent.keep("b", 2)
    assert recent.get("a") == 1
    recent.keep("c", 3)
    assert [recent.get(key) for key in "abc"] == [1, None, 3]
    recent.keep("a", 4)
    recent.keep("d", 5)
    assert [recent.get(key) for key in "acd"] == [4, None, 5]
