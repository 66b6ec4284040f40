"""What `python -m bench.expressions` asks of each CEL library."""

from typing import Any, Final

ROWS: Final[list[dict[str, Any]]] = [
    {"id": number, "mag": number % 70 / 10, "place": f"place {number}"} for number in range(1000)
]
DATA: Final[dict[str, Any]] = {
    "i": 3,
    "d": 2.5,
    "s": "hé😀",
    "n": None,
    "l": [1, 2, 3],
    "m": {"a": 1, "b": None},
}

# Expression, and its value as cel-spec has it (doc/langdef.md and its conformance tests): a list of
# what is allowed where there is a choice.
CONFORMANCE: Final[tuple[tuple[str, str], ...]] = (
    ("1 + 2", "int 3"),
    ("1.0 + 2.0", "double 3.0"),
    ("i * d", "error"),
    ("7 / 2", "int 3"),
    ("-7 / 2", "int -3"),
    ("-7 % 3", "int -1"),
    ("1 / 0", "error"),
    ("1.0 / 0.0 > 1e300", "bool true"),
    ("9223372036854775807 + 1", "error"),
    ("-9223372036854775808 - 1", "error"),
    ("-(-9223372036854775808)", "error"),
    ("1u - 2u", "error"),
    ("uint(18446744073709551615u)", "int 18446744073709551615"),
    ("i == 3.0", "bool true"),
    ("i < d", "bool false"),
    ("dyn(1) == dyn('1')", "bool false"),
    ("n == null", "bool true"),
    ("dyn(n) == dyn(0)", "bool false"),
    ("true || 1 / 0 > 0", "bool true"),
    ("1 / 0 > 0 || true", "bool true"),
    ("1 / 0 > 0 && false", "bool false"),
    ("1 / 0 > 0 || false", "error"),
    ("[1, 0].exists(x, 1 / x > 0)", "bool true"),
    ("[0, 1].exists(x, 1 / x > 0)", "bool true"),
    ("[1, 0].all(x, 1 / x > 5)", "bool false"),
    ("true ? 1 : 1 / 0", "int 1"),
    ("has(m.a) && !has(m.q)", "bool true"),
    ("has(m.b)", "bool true"),
    ("m.q", "error"),
    ("m['a']", "int 1"),
    ("'a' in m && !(1 in m)", "bool true"),
    ("l[3]", "error"),
    ("2.0 in l", "bool true"),
    ("size(s)", "int 3"),
    ("s.size()", "int 3"),
    ("'abc'.matches('a.c')", "bool true"),
    ("'xabcx'.matches('abc')", "bool true"),
    ("'a' < 'b' && b'a' < b'b'", "bool true"),
    ("r'\\n'.size()", "int 2"),
    ("'\\u00e9\\x41\\101'", "string éAA"),
    ("b'\\xff'", "bytes ff"),
    ("string(bytes(s)) == s", "bool true"),
    ("int('12') + int(3.9)", "int 15"),
    ("int(1e30)", "error"),
    ("double('1e3')", "double 1000.0"),
    ("string(1.0)", "string 1"),
    ("l.map(x, x > 1, x * 2)", "[int 4, int 6]"),
    ("l.exists_one(x, x > 2)", "bool true"),
    ("m.exists(k, k == 'b')", "bool true"),
    ("[1, 2] + [3] == l", "bool true"),
    ("{'a': 1, 'b': 2} == {'b': 2, 'a': 1}", "bool true"),
    ("{'a': 1, 'a': 2}", "error"),
    ("{1: 'x'}[1]", "string x"),
    ("timestamp('2026-01-02T03:04:05Z') + duration('1h')", "timestamp 2026-01-02T04:04:05Z"),
    ("timestamp('2026-01-02T03:04:05Z').getDayOfYear()", "int 1"),
    ("timestamp('2026-01-02T00:30:00Z').getHours('America/New_York')", "int 19"),
    ("duration('90s').getMinutes()", "int 1"),
    ("type(1) == int && type(1.0) != int", "bool true"),
    ("l.map(l, l).size()", "int 3"),
    ("undeclared", "error"),
)

SPEED: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    ("arithmetic", "i + 1 > 2 && d < 5.0", DATA),
    ("strings", "'hello ' + s + '!'", DATA),
    ("field", "m.a", DATA),
    ("regex", "'aaaaaaaaaaaaaaaaaaaaaaaa!'.matches('^(a+)+$')", DATA),
    ("list", "l.map(x, x * 2)", DATA),
    ("exists, 1,000 rows", "rows.exists(r, r.mag > 100.0)", {"rows": ROWS}),
    ("filter, 1,000 rows", "rows.filter(r, r.mag >= 4.5)", {"rows": ROWS}),
)

LIMITS: Final[tuple[tuple[str, str], ...]] = (
    ("100 x 1,000 iterations", "l100.map(a, l1000.map(b, a + b)).size()"),
    ("100 MB from 1 kB", "[s]" + ".map(a, a + a)" * 17 + "[0].size()"),
    ("source nested 3,000 deep", "(" * 3000 + "1" + ")" * 3000),
)
"""What is refused by a library with a bound on iterations, on memory, on its own stack."""
