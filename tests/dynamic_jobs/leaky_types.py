"""Node types that tell their secret wherever they can. Processes of a pool can import this module.

``ways`` are what is done with it, in order.
"""

import base64
import logging
from typing import Any, NoReturn
from urllib.parse import quote

from pydantic import Field, JsonValue

from node_types.base import (
    Fields,
    InlineNodeType,
    LoopNodeType,
    NodeContext,
    NodeError,
    ProcessNodeType,
    ThreadNodeType,
)

SECRET_FIELDS = frozenset({"secret"})


class Leak(Fields):
    secret: str
    way: str = "output"
    size: int = 0


class Leaked(Fields):
    told: JsonValue
    filling: str = Field(default="")


def leak(given: Leak) -> Leaked:
    secret = given.secret
    match given.way:
        case "error":
            raise NodeError(f"it was {secret}", hint=f"not {quote(secret, safe='')}", at=secret)
        case "crash":
            return _break(secret)
        case "misfit":
            return Leaked.model_validate({"told": {}, secret: secret})
        case _:
            basic = base64.b64encode(f"ann:{secret}".encode()).decode()
            return Leaked(
                told={secret: [secret, {"basic": basic}]}, filling="." * given.size + secret
            )


def _break(secret: str) -> NoReturn:
    try:
        raise KeyError(secret)
    except KeyError as error:
        error.add_note(f"the note of {secret}")
        raise ValueError(f"broken by {secret}") from error


def tell(given: Leak, context: NodeContext) -> None:
    metadata: dict[str, Any] = {"secret": given.secret, "deep": {given.secret: [given.secret]}}
    context.log("warning", f"the secret is {given.secret}")
    context.materialize(["told", given.secret], metadata)
    logging.getLogger("some.library").warning("sending %s", given.secret)


class LeakyInline(InlineNodeType[Leak, Leaked]):
    secret_fields = SECRET_FIELDS
    effects = "none"
    With = Leak
    Output = Leaked

    def compute(self, given: Leak) -> Leaked:
        return leak(given)


class LeakyLoop(LoopNodeType[Leak, Leaked]):
    secret_fields = SECRET_FIELDS
    effects = "none"
    With = Leak
    Output = Leaked

    async def run(self, given: Leak, context: NodeContext) -> Leaked:
        tell(given, context)
        return leak(given)


class LeakyThread(ThreadNodeType[Leak, Leaked]):
    secret_fields = SECRET_FIELDS
    effects = "none"
    With = Leak
    Output = Leaked

    def run_blocking(self, given: Leak, context: NodeContext) -> Leaked:
        tell(given, context)
        return leak(given)


class LeakyProcess(ProcessNodeType[Leak, Leaked]):
    secret_fields = SECRET_FIELDS
    effects = "none"
    With = Leak
    Output = Leaked

    def compute(self, given: Leak) -> Leaked:
        return leak(given)
