"""Routers whose routes are whole once their module is imported."""

from fastapi import APIRouter, FastAPI

from live_api.openapi import operation_id
from live_api.problems import problems
from live_api.quick_route import QuickRoute


def api_router(prefix: str = "", tag: str | None = None, *faults: int) -> APIRouter:
    """A router below ``prefix`` whose routes have this tag, and may answer with these statuses."""
    return APIRouter(
        prefix=prefix,
        tags=None if tag is None else [tag],
        responses=problems(*faults),
        generate_unique_id_function=operation_id,
        route_class=QuickRoute,
    )


def add_routers(app: FastAPI, *routers: APIRouter) -> None:
    """Let ``app`` answer the routes of these routers, as they are.

    ``include_router`` would make each route again when the first request comes: 50 ms in which all
    others wait, and pydantic cannot do it in two threads at once.
    """
    for router in routers:
        app.router.routes.extend(router.routes)
