"""Webhooks of a graph, and calls of them as GitHub makes them: a push of 7 kB, signed.

Each call is a new delivery with a body of its own, so that none repeats another.
"""

import hashlib
import hmac
import itertools
import json
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from bench.engines.graphwright import Graphwright
from bench.engines.web import run
from bench.support.http import Http
from bench.support.machine import ROOT

_PAYLOAD: Final = ROOT / "examples" / "data" / "github" / "push.payload.json"
_TRIGGER: Final = {
    "type": "webhook",
    "scheme": "github",
    "filter": "${{ trigger.headers['x-github-event'] == 'push' }}",
    "params": {"commit": "${{ trigger.body.after }}"},
}
_PARAMS: Final = {"type": "object", "properties": {"commit": {"type": "string"}}}


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The webhooks of a graph; calls go to one after the other."""

    base: str
    paths: Sequence[str]
    _secret: bytes = field(repr=False)
    _rest: bytes = field(repr=False)
    """Of a body: what follows its first member."""
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def http(self) -> Http:
        return Http(self.base)

    def call(self, http: Http) -> bytes:
        """A signed call that was never sent."""
        body = b'{"after": "%s", %s' % (secrets.token_hex(20).encode(), self._rest)
        signature = hmac.new(self._secret, body, hashlib.sha256).hexdigest()
        headers = {
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": str(uuid.uuid4()),
            "X-Hub-Signature-256": f"sha256={signature}",
        }
        path = self.paths[next(self._numbers) % len(self.paths)]
        return http.post(path, body, headers=headers)


def publish(stack: Graphwright, document: Mapping[str, Any], count: int = 1) -> Webhooks:
    """Publish a graph with ``count`` webhooks, and set the secret that they share."""
    secret = secrets.token_hex(20)
    # Of the graph's own: for seconds, receivers would take one for what it was before.
    secret_name = document["metadata"]["name"].replace("-", "_")
    trigger = {**_TRIGGER, "secret": secret_name}
    triggers = {f"push_{number}": trigger for number in range(count)}
    name = stack.post({**document, "params": _PARAMS, "triggers": triggers})

    async def work() -> list[str]:
        async with stack.http() as http:
            body = json.dumps({"value": secret}).encode()
            await http.send(http.put(f"/api/v1/secrets/{secret_name}", body))
            found = await http.send(http.get(f"/api/v1/graphs/{name}/triggers"))
            return [item["url"] for item in found.json()["items"]]

    urls = [urlsplit(url) for url in run(work())]
    base = f"{urls[0].scheme}://{urls[0].netloc}"
    payload = json.loads(_PAYLOAD.read_bytes())
    del payload["after"]
    rest = json.dumps(payload).encode().removeprefix(b"{")
    return Webhooks(base, [url.path for url in urls], secret.encode(), rest)
