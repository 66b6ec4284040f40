"""The routes of live streams."""

from fastapi import APIRouter

from live_api.streams import many, run_socket, runs, socket

router = APIRouter()
for part in (runs, run_socket, many, socket):
    router.routes.extend(part.router.routes)
