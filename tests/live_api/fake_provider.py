"""A fake OpenID provider: real keys, real signatures, and a JWKS document over real HTTP."""

import json
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Algorithm = Literal["RS256", "ES256", "EdDSA"]

ISSUER = "https://login.example.org/"
AUDIENCE = "graphwright-api"


@dataclass(frozen=True)
class Key:
    """A key pair of the provider."""

    kid: str
    algorithm: Algorithm
    private: Any

    def jwk(self) -> dict[str, Any]:
        """The public half, as the JWKS document has it."""
        by_name = jwt.get_algorithm_by_name(self.algorithm)
        public = by_name.to_jwk(self.private.public_key(), as_dict=True)
        return {**public, "kid": self.kid, "use": "sig"}

    def pem(self) -> bytes:
        """The public half, as a file would have it."""
        return self.private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )

    def sign(
        self,
        headers: Mapping[str, Any] | None = None,
        algorithm: str | None = None,
        **changes: object,
    ) -> str:
        """A token; headers and claims that are None are left out."""
        merged = {"kid": self.kid, **(headers or {})}
        merged = {name: value for name, value in merged.items() if value is not None}
        return jwt.encode(
            claims(**changes), self.private, algorithm=algorithm or self.algorithm, headers=merged
        )


@cache
def key(algorithm: Algorithm, kid: str = "first") -> Key:
    """The key of this name, the same each time."""
    private: Any
    if algorithm == "RS256":
        private = rsa.generate_private_key(65537, 2048)
    elif algorithm == "ES256":
        private = ec.generate_private_key(ec.SECP256R1())
    else:
        private = ed25519.Ed25519PrivateKey.generate()
    return Key(kid, algorithm, private)


def claims(**changes: object) -> dict[str, Any]:
    """What a good token says, but for the changes."""
    now = int(time.time())
    given = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "auth0|ann",
        "tenant": "acme",
        "iat": now,
        "exp": now + 60,
        "jti": "1",
        **changes,
    }
    return {name: value for name, value in given.items() if value is not None}


class FakeProvider:
    """The provider's HTTP side; ``keys`` and ``status`` may be changed while it runs."""

    def __init__(self, *keys: Key) -> None:
        self.keys: list[Any] = [each.jwk() for each in keys]
        self.status = 200
        self.asked: list[str] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                body = json.dumps({"keys": provider.keys}).encode()
                self.send_response(provider.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Generator["FakeProvider"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
