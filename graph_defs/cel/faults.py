"""How an expression fails, inside graph_defs/cel; expressions.py makes users' errors of these."""


class _Worded(Exception):
    """``message`` and ``hint`` are in a user's words."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CompileFault(_Worded):
    """The expression does not parse, does not check, or reads what cannot be checked."""


class ValueFault(_Worded):
    """A value cannot cross between JSON and CEL."""


class CostFault(_Worded):
    """The evaluation needed more memory, time or iterations than it may have."""


class EvaluationFault(Exception):
    """The expression failed on its data; ``raw`` is cel-cpp's message, without the status."""

    def __init__(self, raw: str) -> None:
        super().__init__(raw)
        self.raw = raw


class NotQuick(Exception):
    """The evaluation may take longer than its caller can wait. No fault of the expression."""
