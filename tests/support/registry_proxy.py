"""A proxy in front of a registry: records requests, fails some of them, and can add the referrers API."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

INDEX = "application/vnd.oci.image.index.v1+json"
_KEPT = (
    "content-type",
    "location",
    "range",
    "docker-upload-uuid",
    "docker-content-digest",
    "www-authenticate",
    "oci-subject",
)


@dataclass(frozen=True)
class Fault:
    """What the proxy sends instead of the registry's answer.

    Attributes:
        status: status code; 0 for a connection that is reset
        body: content
        headers: headers
        forwards: whether the registry gets the request, so that only its answer is lost
    """

    status: int = 0
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    forwards: bool = False


@dataclass(frozen=True)
class Request:
    """A request.

    Attributes:
        method: such as ``PUT``
        path: path without ``/v2/``
        sent: bytes of the request's body
        received: bytes of the answer's body
    """

    method: str
    path: str
    sent: int
    received: int


class RegistryProxy(ThreadingHTTPServer):
    """A proxy for a registry with plain HTTP.

    Attributes:
        address: host and port, the first part of an image's name
        requests: all requests so far
        fault: returns what to send instead of the registry's answer; `None` for that answer. It gets the method and
            the path, and can do other things at that moment
        then: called with the method and the path when the registry has answered
        has_referrers: whether the proxy answers requests of the referrers API
        gets_uploads: whether the registry names the proxy for the uploads of blobs, and not itself
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, registry: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.registry = registry
        self.address = f"127.0.0.1:{self.server_port}"
        self.requests: list[Request] = []
        self.fault: Callable[[str, str], Fault | None] = lambda _method, _path: None
        self.then: Callable[[str, str], object] = lambda _method, _path: None
        self.has_referrers = False
        self.gets_uploads = False
        self.referrers: dict[str, list[dict[str, Any]]] = {}

    def fail(self, method: str, part: str, *faults: Fault) -> None:
        """Fail the first requests with this method and this part of a path, one after another."""
        left = list(faults)
        self.fault = lambda sent, path: left.pop(0) if left and sent == method and part in path else None

    def count(self, method: str, part: str = "") -> int:
        """Return the number of requests with this method and this part of a path."""
        return sum(request.method == method and part in request.path for request in self.requests)

    def handle_error(self, *_: object) -> None:
        """Ignore errors: clients close connections early."""


class _Handler(BaseHTTPRequestHandler):
    server: RegistryProxy
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # engines try HTTPS first

    def do_GET(self) -> None:
        path = self.path.removeprefix("/v2/")
        body = self._body()
        fault = self.server.fault(self.command, path)
        if fault is None or fault.forwards:
            status, headers, content = self._referrers(path) or self._forwarded(body)
            self.server.then(self.command, path)
        if fault is not None:
            status, headers, content = fault.status, dict(fault.headers), fault.body
        self.server.requests.append(Request(self.command, path, len(body), len(content)))
        if not status:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in ({"content-length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_POST = do_PUT = do_PATCH = do_HEAD = do_GET  # noqa: N815 the base class's name

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _forwarded(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        registry = http.client.HTTPConnection(self.server.registry, timeout=60)
        with contextlib.closing(registry):
            host = self.server.address if self.server.gets_uploads else self.server.registry
            headers = {name: value for name, value in self.headers.items() if name != "Transfer-Encoding"}
            registry.request(self.command, self.path, body, {**headers, "Host": host})
            answer = registry.getresponse()
            content = answer.read()
        if self.command == "PUT" and answer.status == 201:
            self._remember(body, answer.headers["Docker-Content-Digest"])
        kept = (*_KEPT, "content-length") if self.command == "HEAD" else _KEPT
        return answer.status, {n.lower(): v for n, v in answer.getheaders() if n.lower() in kept}, content

    def _remember(self, body: bytes, digest: str) -> None:
        document = json.loads(body) if body.startswith(b"{") else {}
        if subject := document.get("subject"):
            entry = {"mediaType": document["mediaType"], "digest": digest, "size": len(body)}
            entry["artifactType"] = document["artifactType"]
            self.server.referrers.setdefault(subject["digest"], []).append(entry)

    def _referrers(self, path: str) -> tuple[int, dict[str, str], bytes] | None:
        _, found, digest = path.partition("/referrers/")
        if not found or not self.server.has_referrers:
            return None
        entries = self.server.referrers.get(digest.partition("?")[0], [])
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        return 200, {"content-type": INDEX}, json.dumps(document).encode()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def registry_proxy(registry: str) -> Iterator[RegistryProxy]:
    with RegistryProxy(registry) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True).start()
        yield proxy
        proxy.shutdown()
