"""A token server, and a registry that requires its tokens."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import Encoding

from support.guarded import BASIC, PASSWORD, USER
from support.pushing import started_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REFRESH = "s3cret-refresh-token"
_LEEWAY = 60  # seconds for which the registry accepts expired tokens (distribution, registry/auth/token/token.go)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Tokens(ThreadingHTTPServer):
    """A token server like that of Docker Hub or GHCR: GET with a password, POST with a password or a refresh token.

    Attributes:
        asked: method and scope of each request
        certificate: certificate of the key that signs tokens
        lifetime: seconds for which a token is valid
        url: address of the server
    """

    def __init__(self, lifetime: int) -> None:
        super().__init__(("127.0.0.1", 0), _TokenRequest)
        self.lifetime = lifetime
        self.url = f"http://127.0.0.1:{self.server_port}/token"
        self.asked: list[str] = []
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tokens")])
        now = datetime.now(timezone.utc)
        builder = x509.CertificateBuilder(name, name, self._key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        self.certificate = builder.sign(self._key, hashes.SHA256())

    def token(self, scope: str) -> str:
        now = int(time.time())
        der = base64.b64encode(self.certificate.public_bytes(Encoding.DER)).decode()
        access = [
            {"type": kind, "name": name, "actions": actions.split(",")}
            for kind, name, actions in (each.split(":") for each in scope.split(" "))
        ]
        claims: dict[str, Any] = {"iss": "tokens", "sub": USER, "aud": "registry", "jti": "1", "access": access}
        claims |= {"exp": now + self.lifetime - _LEEWAY, "nbf": now - 2 * _LEEWAY, "iat": now}
        header = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        return f"{signed}.{_encoded(self._key.sign(signed.encode(), PKCS1v15(), hashes.SHA256()))}"


class _TokenRequest(BaseHTTPRequestHandler):
    server: Tokens

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self._answer(query["scope"][0], allowed=self.headers.get("Authorization") == f"Basic {BASIC}")

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        known = {"refresh_token": REFRESH, "password": PASSWORD}
        self._answer(form["scope"][0], allowed=any(form.get(name) == [value] for name, value in known.items()))

    def _answer(self, scope: str, *, allowed: bool) -> None:
        self.server.asked.append(f"{self.command} {scope}")
        body: dict[str, Any] = {"errors": [{"message": "wrong password"}]}
        if allowed:
            body = {"access_token": self.server.token(scope), "expires_in": self.server.lifetime}
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def token_server(lifetime: int = 300) -> Iterator[Tokens]:
    """Start a token server.

    Args:
        lifetime: seconds for which a token is valid
    """
    with Tokens(lifetime) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@contextlib.contextmanager
def registry_with_tokens(program: str, folder: Path, tokens: Tokens) -> Iterator[str]:
    """Start a registry that requires tokens of this server, and give its address."""
    (folder / "bundle.pem").write_bytes(tokens.certificate.public_bytes(Encoding.PEM))
    auth = {"realm": tokens.url, "service": "registry", "issuer": "tokens", "rootcertbundle": f"{folder}/bundle.pem"}
    with started_registry(program, folder, auth={"token": auth}) as address:
        yield address
