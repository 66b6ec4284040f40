"""``http.request``: one HTTP request, to an address that the operator allows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from node_types.base import Fields, LoopNodeType, NodeContext, NodeError

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS = 5
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class InvalidRequestError(NodeError):
    """The URL or a header cannot be sent."""

    code = "invalid_request"


class AddressNotAllowedError(NodeError):
    """The host is loopback, private or link-local, and the operator does not allow that."""

    code = "address_not_allowed"


class RequestFailedError(NodeError):
    """No answer: the name is unknown, the connection failed, or it took too long."""

    code = "request_failed"


class UnexpectedStatusError(NodeError):
    """An answer, but not with a status that was expected."""

    code = "unexpected_status"


class ResponseTooLargeError(NodeError):
    """The response is larger than a node may read."""

    code = "response_too_large"


class ResponseUnreadableError(NodeError):
    """The response is not text, or not the JSON that it says it is."""

    code = "response_unreadable"


class Request(Fields):
    """The request. At most one of `json` and `body`."""

    url: str = Field(
        pattern=r"^[hH][tT][tT][pP][sS]?://", description="Absolute, `http://` or `https://`."
    )
    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = Field(
        default="GET", description="The HTTP method, in capitals."
    )
    headers: dict[str, str] = Field(
        default={},
        description="Sent to `url`, and not to another host that it redirects to. A method that "
        "changes something also sends `Idempotency-Key`, the same for each attempt of this node.",
    )
    query: dict[str, str | int | float | bool] = Field(
        default={}, description="Parameters that are added to the URL."
    )
    json_: JsonValue = Field(default=None, alias="json", description="Body, sent as JSON.")
    body: str | None = Field(default=None, description="Body, sent as it is, in UTF-8.")
    timeout_seconds: float = Field(
        30, gt=0, le=3600, description="Time for everything, redirects and body included."
    )
    expect: list[int] | None = Field(
        default=None,
        min_length=1,
        description="Statuses that are a success; by default all below 400.",
    )

    @model_validator(mode="after")
    def _one_body(self) -> Self:
        if self.body is not None and "json_" in self.model_fields_set:
            raise PydanticCustomError("conflicting_fields", "Give `json` or `body`, not both.")
        return self


class Response(Fields):
    """The answer, after redirects."""

    status: int
    headers: dict[str, str] = Field(description="Names in lower case; repeated ones are joined.")
    json_: JsonValue = Field(default=None, alias="json", description="The body, where it is JSON.")
    body: str | None = Field(default=None, description="The body, where it is not JSON.")


class HttpRequest(LoopNodeType[Request, Response]):
    """Sends one request and reads the whole answer."""

    name = "http.request"
    version = 1
    effects = "external"
    secret_fields = frozenset({"url", "headers", "query", "json", "body"})
    With = Request
    Output = Response

    async def run(self, given: Request, context: NodeContext) -> Response:
        import httpx

        from node_types.support.outbound import AddressRefused, CheckedTransport, is_any, is_public

        limit = context.policy.max_input_bytes
        allows = is_any if context.policy.http_private else is_public
        host = "the host"
        try:
            async with (
                asyncio.timeout(given.timeout_seconds),
                httpx.AsyncClient(
                    transport=CheckedTransport(allows),
                    timeout=None,  # noqa: S113 - asyncio.timeout bounds the whole
                ) as client,
            ):
                request: httpx.Request | None = _build(client, given, context.key)
                for _ in range(MAX_REDIRECTS + 1):
                    host = request.url.host
                    response = await client.send(request, stream=True)
                    try:
                        following = response.next_request
                        if following is None:
                            content = await _read(response, limit)
                            return _output(response, content, given.expect)
                    finally:
                        await response.aclose()
                    request = _redirected(request, following, given)
        except AddressRefused as error:
            raise AddressNotAllowedError(
                f"{host} is not on the public internet, and may not be called.",
                hint="Ask the operator to set GRAPHWRIGHT_HTTP_PRIVATE.",
            ) from error
        except TimeoutError as error:
            raise RequestFailedError(
                f"{host} did not answer within {given.timeout_seconds:g} s.",
                hint="Raise `timeout_seconds`.",
            ) from error
        except httpx.DecodingError as error:
            raise ResponseUnreadableError(
                f"The response of {host} cannot be decompressed."
            ) from error
        except httpx.LocalProtocolError as error:
            raise InvalidRequestError("A header's name or value cannot be sent.") from error
        except httpx.TransportError as error:
            raise RequestFailedError(
                f"{host} cannot be reached: {type(error).__name__}."
            ) from error
        raise RequestFailedError(f"The request was redirected more than {MAX_REDIRECTS} times.")


def _build(client: httpx.AsyncClient, given: Request, key: str) -> httpx.Request:
    import httpx
    import orjson

    headers = httpx.Headers()
    try:
        content = given.body.encode() if given.body is not None else None
        if "json_" in given.model_fields_set:
            content = orjson.dumps(given.json_)
            headers["Content-Type"] = "application/json"
        if given.method not in _SAFE:
            headers["Idempotency-Key"] = key
        headers.update(given.headers)
        url = httpx.URL(given.url)
        if given.query:
            url = url.copy_merge_params(given.query)
        return client.build_request(given.method, url, headers=headers, content=content)
    except (httpx.InvalidURL, ValueError) as error:  # their messages hold the value
        raise InvalidRequestError(
            "The URL or a header cannot be sent.",
            hint="URLs need a host; headers are ASCII without line breaks.",
        ) from error


def _redirected(before: httpx.Request, after: httpx.Request, given: Request) -> httpx.Request:
    """The next request; what the author gave as headers or body goes to no other origin."""
    origin = (before.url.scheme, before.url.host, before.url.port)
    if origin != (after.url.scheme, after.url.host, after.url.port):
        if after.headers.get("Content-Length", "0") != "0":
            raise RequestFailedError(
                f"{before.url.host} redirects the body to {after.url.host}, which is another.",
                hint="Name the host in `url` that is to get it.",
            )
        for name in [*given.headers, "Idempotency-Key"]:
            if name.lower() != "host" and name in after.headers:
                del after.headers[name]
    return after


async def _read(response: httpx.Response, limit: int) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > limit:
            raise ResponseTooLargeError(
                f"The response of {response.url.host} is larger than {limit:,} bytes."
            )
    return bytes(content)


def _output(response: httpx.Response, content: bytes, expect: list[int] | None) -> Response:
    status = response.status_code
    host = response.url.host
    if status not in expect if expect is not None else status >= 400:
        raise UnexpectedStatusError(
            f"{host} answered {status} {response.reason_phrase}".rstrip() + ".",
            hint="List the statuses that are a success in `expect`.",
            status=str(status),
        )
    headers = dict(response.headers.items())
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content and (kind == "application/json" or kind.endswith("+json")):
        import orjson

        try:
            return Response(status=status, headers=headers, json=orjson.loads(content))
        except orjson.JSONDecodeError as error:
            raise ResponseUnreadableError(
                f"The response of {host} says that it is JSON, and is not."
            ) from error
    try:
        text = content.decode(response.charset_encoding or "utf-8")
    except (LookupError, UnicodeDecodeError) as error:
        raise ResponseUnreadableError(f"The response of {host} is not text.") from error
    return Response(status=status, headers=headers, body=text)
