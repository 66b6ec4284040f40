"""The checked syntax tree of a CEL expression, as cel-cpp hands it out and takes it back.

The binding gives the tree only as a serialised ``cel.expr.CheckedExpr`` and ships no Python classes
for it, so this module alone describes the part of that message which we read or write. The schema
is cel-spec's ``proto/cel/expr/{syntax,checked}.proto``, whose field numbers are a wire format and
do not change. What is left out here (types, references, source positions) is kept by protobuf as
unknown fields and survives a round trip. tests/graph_defs/test_expressions_binding.py fails loudly
when an upgrade of the binding changes any of it.

Messages built at run time have no static types, hence ``Expr = Any``.
"""

from typing import Any, Final

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

Expr = Any
"""A ``cel.expr.Expr`` message."""

_PACKAGE: Final = "cel.expr"
# message -> field -> (number, type), in the words of the .proto files; a leading * is `repeated`.
_SCHEMA: Final[dict[str, dict[str, tuple[int, str]]]] = {
    "Constant": {
        "null_value": (1, "int32"),
        "bool_value": (2, "bool"),
        "int64_value": (3, "int64"),
        "uint64_value": (4, "uint64"),
        "double_value": (5, "double"),
        "string_value": (6, "string"),
        "bytes_value": (7, "bytes"),
    },
    "Ident": {"name": (1, "string")},
    "Select": {"operand": (1, "Expr"), "field": (2, "string"), "test_only": (3, "bool")},
    "Call": {"target": (1, "Expr"), "function": (2, "string"), "args": (3, "*Expr")},
    "CreateList": {"elements": (1, "*Expr")},
    "Entry": {"map_key": (3, "Expr"), "value": (4, "Expr")},
    "CreateStruct": {"message_name": (1, "string"), "entries": (2, "*Entry")},
    "Comprehension": {
        "iter_var": (1, "string"),
        "iter_range": (2, "Expr"),
        "accu_var": (3, "string"),
        "accu_init": (4, "Expr"),
        "loop_condition": (5, "Expr"),
        "loop_step": (6, "Expr"),
        "result": (7, "Expr"),
    },
    "Expr": {
        "id": (2, "int64"),
        "const_expr": (3, "Constant"),
        "ident_expr": (4, "Ident"),
        "select_expr": (5, "Select"),
        "call_expr": (6, "Call"),
        "list_expr": (7, "CreateList"),
        "struct_expr": (8, "CreateStruct"),
        "comprehension_expr": (9, "Comprehension"),
    },
    "CheckedExpr": {"expr": (4, "Expr")},
}
_ONEOF: Final = {"Constant": "constant_kind", "Expr": "expr_kind"}
_OUTSIDE: Final = {"id"}
"""Fields of those messages that are no part of the oneof."""


def _message_classes() -> dict[str, Any]:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="graphwright/cel_expr.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        if name in _ONEOF:
            message.oneof_decl.add(name=_ONEOF[name])
        for field_name, (number, kind) in fields.items():
            bare = kind.removeprefix("*")
            added = message.field.add(
                name=field_name,
                number=number,
                label=field.LABEL_OPTIONAL if bare == kind else field.LABEL_REPEATED,
            )
            if bare in _SCHEMA:
                added.type, added.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{bare}"
            else:
                added.type = field.Type.Value(f"TYPE_{bare.upper()}")
            if name in _ONEOF and field_name not in _OUTSIDE:
                added.oneof_index = 0
    # A pool of its own: another library may have the real cel.expr in the default pool.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _SCHEMA
    }


_CLASSES: Final = _message_classes()


def decode(serialized: bytes) -> Any:
    """The ``CheckedExpr`` in what ``Expression.serialize`` returned.

    Raises ``google.protobuf.message.DecodeError`` for a tree over protobuf's 100 levels.
    """
    wrapper = any_pb2.Any.FromString(serialized)
    return _CLASSES["CheckedExpr"].FromString(wrapper.value)


def encode(checked: Any) -> bytes:
    """The opposite of `decode`, for ``Env.deserialize``."""
    url = f"type.googleapis.com/{_PACKAGE}.CheckedExpr"
    return any_pb2.Any(type_url=url, value=checked.SerializeToString()).SerializeToString()


def kind_of(expr: Expr) -> str:
    """Which ``*_expr`` field is set; ``""`` for an empty message."""
    return expr.WhichOneof("expr_kind") or ""


def children(expr: Expr) -> list[Expr]:
    """The operands of a call (a method's receiver first), and what a list or a map is made of.

    Not for comprehensions, whose parts see different variables.
    """
    match kind_of(expr):
        case "select_expr":
            return [expr.select_expr.operand]
        case "call_expr":
            call = expr.call_expr
            return [call.target, *call.args] if call.HasField("target") else list(call.args)
        case "list_expr":
            return list(expr.list_expr.elements)
        case "struct_expr":
            entries = expr.struct_expr.entries
            return [part for entry in entries for part in (entry.map_key, entry.value)]
        case _:
            return []


def text_size(expr: Expr) -> int:
    """Bytes of a string or bytes literal; 0 for other constants."""
    constant = expr.const_expr
    return len(constant.string_value.encode()) + len(constant.bytes_value)


def string_constant(expr: Expr) -> str | None:
    """The string that the expression is, if it is nothing but a string literal."""
    if (
        kind_of(expr) != "const_expr"
        or expr.const_expr.WhichOneof("constant_kind") != "string_value"
    ):
        return None
    return expr.const_expr.string_value


def is_empty_list(expr: Expr) -> bool:
    return kind_of(expr) == "list_expr" and not expr.list_expr.elements


def is_ident(expr: Expr, name: str) -> bool:
    return kind_of(expr) == "ident_expr" and expr.ident_expr.name == name


FIRST_INPUT_ID: Final = 1 << 32
FIRST_BUILT_ID: Final = 1 << 33
"""Ids of nodes that are not the parser's, which counts from 1, one for every few characters."""


class Builder:
    """Makes new nodes."""

    def __init__(self) -> None:
        self._next = FIRST_BUILT_ID

    def _new(self, **kind: Any) -> Expr:
        self._next += 1
        return _CLASSES["Expr"](id=self._next, **kind)

    def const(self, value: bool | int) -> Expr:
        name = "bool_value" if isinstance(value, bool) else "int64_value"
        return self._new(const_expr=_CLASSES["Constant"](**{name: value}))

    def ident(self, name: str) -> Expr:
        return self._new(ident_expr=_CLASSES["Ident"](name=name))

    def call(self, function: str, *args: Expr) -> Expr:
        return self._new(call_expr=_CLASSES["Call"](function=function, args=args))

    def method(self, target: Expr, function: str, *args: Expr) -> Expr:
        return self._new(call_expr=_CLASSES["Call"](target=target, function=function, args=args))

    def list_of(self, *elements: Expr) -> Expr:
        return self._new(list_expr=_CLASSES["CreateList"](elements=elements))

    def fold(self, **parts: Any) -> Expr:
        """A comprehension; ``parts`` are the fields of ``Expr.Comprehension``."""
        return self._new(comprehension_expr=_CLASSES["Comprehension"](**parts))

    def bind(self, name: str, value: Expr, body: Expr) -> Expr:
        """What the macro ``cel.bind(name, value, body)`` expands to."""
        return self.fold(
            iter_var="#unused",
            iter_range=self.list_of(),
            accu_var=name,
            accu_init=value,
            loop_condition=self.const(False),
            loop_step=self.ident(name),
            result=body,
        )
