"""A registry that serves images from memory."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class MemoryRegistry(ThreadingHTTPServer):
    """A registry with plain HTTP.

    Attributes:
        address: host and port, the first part of an image's name
        images: by name of the repository, content and media type by path, such as ``manifests/v1``
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"127.0.0.1:{self.server_port}"
        self.images: dict[str, dict[str, tuple[bytes, str]]] = {}

    def handle_error(self, *_: object) -> None:
        """Ignore errors: clients close connections early."""


class _Handler(BaseHTTPRequestHandler):
    server: MemoryRegistry
    protocol_version = "HTTP/1.1"
    # containerd tries HTTPS first, and HTTP if the answer to that begins with "HTTP/".
    default_request_version = "HTTP/1.0"

    def do_GET(self) -> None:
        _, _, name, *path = self.path.split("/")
        content, media_type = self.server.images.get(name, {}).get("/".join(path), (None, ""))
        if not name:  # is this a registry?
            content = b"{}"
        self.send_response(404 if content is None else 200)
        if media_type:
            self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content or b"")

    do_HEAD = do_GET  # noqa: N815 the base class's name

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def memory_registry() -> Iterator[MemoryRegistry]:
    with MemoryRegistry() as registry:
        threading.Thread(target=registry.serve_forever, args=(0.01,), daemon=True).start()
        yield registry
        registry.shutdown()
