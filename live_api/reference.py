"""The reference: /openapi.json for programs, /docs for people, without a script or a CDN."""

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from html import escape
from typing import Any, Final

import orjson
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

_CACHE: Final = "public, max-age=300"
_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code { font-family: ui-monospace, monospace } section { margin: 2rem 0 }
summary { cursor: pointer; padding: .3rem 0 } details { border-top: 1px solid #8884 }
summary code { display: inline-block; min-width: 4rem; font-weight: 600 }
table { border-collapse: collapse; margin: .5rem 0 1rem } td { padding: .1rem 1rem .1rem 0 }
td { vertical-align: top }
"""
_STYLE_HASH: Final = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY: Final = f"default-src 'none'; frame-ancestors 'none'; style-src 'sha256-{_STYLE_HASH}'"


def add_reference(app: FastAPI) -> None:
    """Let ``app`` answer at both paths, with what is rendered once: routes do not change."""

    @cache
    def document() -> bytes:
        return orjson.dumps(app.openapi())

    @cache
    def page() -> bytes:
        return "".join(_page(app.openapi())).encode()

    async def answer_document(_request: Request) -> Response:
        headers = {"Cache-Control": _CACHE}
        return Response(document(), media_type="application/json", headers=headers)

    async def answer_page(_request: Request) -> Response:
        headers = {"Cache-Control": _CACHE, "Content-Security-Policy": _POLICY}
        return Response(page(), media_type="text/html", headers=headers)

    app.router.add_route("/openapi.json", answer_document, methods=["GET"], include_in_schema=False)
    app.router.add_route("/docs", answer_page, methods=["GET"], include_in_schema=False)


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    info = document["info"]
    name = escape(f"{info['title']} {info['version']}")
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
    yield f"<style>{_STYLE}</style><h1>{name}</h1>"
    yield "".join(f"<p>{_prose(part)}</p>" for part in info["description"].split("\n\n"))
    yield '<p>For programs and tools: <a href="/openapi.json">/openapi.json</a>.</p>'
    for tag in document["tags"]:
        yield f"<section><h2>{escape(tag['name'])}</h2><p>{_prose(tag.get('description', ''))}</p>"
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if tag["name"] in operation["tags"]:
                    yield from _operation(method.upper(), path, operation)
        yield "</section>"


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<details><summary><code>{method}</code> <code>{escape(path)}</code>"
    yield f" {escape(operation['summary'])}</summary>"
    yield f"<p>{_prose(operation.get('description', ''))}</p>"
    yield _table(
        (parameter["name"], f"{parameter['in']}. {parameter.get('description', '')}")
        for parameter in operation.get("parameters", ())
    )
    yield _table(
        (status, answer["description"]) for status, answer in operation["responses"].items()
    )
    yield f"<p>Operation <code>{escape(operation['operationId'])}</code>.</p></details>"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    cells = (f"<tr><td><code>{escape(a)}</code><td>{_prose(b)}" for a, b in rows)
    return f"<table>{''.join(cells)}</table>"


def _prose(text: str) -> str:
    """Text with `code` in it."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))
