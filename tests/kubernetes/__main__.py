"""The fake API server as a process: ``python -m tests.kubernetes FOLDER TOKEN LIMITED IMAGE…``.

It prints its URL, and serves until SIGTERM.
"""

import argparse
import asyncio
import signal
import socket
from pathlib import Path

import uvicorn

from tests.kubernetes.app import app
from tests.kubernetes.cluster import Cluster


async def _serve(given: argparse.Namespace) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    address = "{}:{}".format(*listening.getsockname())
    cluster = Cluster(given.folder, frozenset(given.images), address, not given.no_execution)
    config = uvicorn.Config(
        app(cluster, given.token, given.limited, frozenset(given.right)),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=1,  # for logs that are followed
    )
    server = uvicorn.Server(config)
    # uvicorn raises the signal again once it has ended: then it must not end us before our pods.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(f"http://{address}", flush=True)  # noqa: T201
    try:
        await server.serve(sockets=[listening])
    finally:
        cluster.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("token")
    parser.add_argument("limited", help="the token of who has only the rights that are given")
    parser.add_argument("images", nargs="*")
    parser.add_argument("--right", action="append", default=[], metavar="VERB:RESOURCE")
    parser.add_argument("--no-execution", action="store_true")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal, which whoever started us has
    asyncio.run(_serve(parser.parse_args()))


main()
