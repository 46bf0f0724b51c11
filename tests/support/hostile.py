"""A registry that sends the invalid responses that a test defines."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import threading
import zlib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from support.pushing import CONFIG, LAYER, MANIFEST, descriptor, digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


@dataclass(frozen=True)
class Answer:
    """The response for a path. An iterable body is sent without a length, so that it can be endless."""

    body: bytes | Iterable[bytes] = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    """The complete response, including the status line; it replaces all other fields."""


class HostileServer(ThreadingHTTPServer):
    """A server with plain HTTP that answers by path.

    Attributes:
        answers: responses by path, without `/v2/`; the response to other paths is 404
        asked: the paths that were requested, each with its header `Authorization`
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"127.0.0.1:{self.server_port}"
        self.url = f"http://{self.address}"
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.challenge: Answer | None = None
        """The response to requests without the header `Authorization`."""

    def serve(self, name: str, document: Any, media_type: str = MANIFEST) -> dict[str, Any]:
        """Serve a manifest or an index in the repository `x`, under its digest and the tag `name`."""
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        answer = Answer(content, headers={"Content-Type": media_type})
        self.answers[f"x/manifests/{name}"] = self.answers[f"x/manifests/{digest(content)}"] = answer
        return descriptor(media_type, content)

    def blob(self, content: bytes, media_type: str = LAYER) -> dict[str, Any]:
        """Serve a blob in the repository `x`."""
        self.answers[f"x/blobs/{digest(content)}"] = Answer(content)
        return descriptor(media_type, content)

    def document(self, path: str) -> Any:
        """Return the JSON document that is served under a path in the repository `x`."""
        body = self.answers[f"x/{path}"].body
        assert isinstance(body, bytes)
        return json.loads(body)

    def image(self, name: str, *layers: bytes, **changes: Any) -> dict[str, Any]:
        """Serve an image with these layers, which are gzip files. `changes` replace members of its manifest."""
        diff_ids = [digest(gzip.decompress(layer)) for layer in layers]
        platform = {"os": "linux", "architecture": "amd64"}
        config = json.dumps({**platform, "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(config, CONFIG),
            "layers": [self.blob(layer) for layer in layers],
        }
        return self.serve(name, {**document, **changes})

    def handle_error(self, *_: Any) -> None:
        """Ignore errors: the client closes connections early, as it should."""


class _Handler(BaseHTTPRequestHandler):
    server: HostileServer

    def do_GET(self) -> None:
        path, authorization = self.path.removeprefix("/v2/"), self.headers.get("Authorization")
        self.server.asked.append((path, authorization))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.answers.get(path.partition("?")[0], Answer(b"{}", 404))
        if self.server.challenge and not authorization and path.startswith("x/"):
            answer = self.server.challenge
        if answer.raw is not None:
            self.wfile.write(answer.raw)
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if isinstance(answer.body, bytes):
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
            return
        self.end_headers()
        for piece in answer.body:
            self.wfile.write(piece)

    do_POST = do_PUT = do_GET  # noqa: N815 the base class's name

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def hostile_server() -> Iterator[HostileServer]:
    with HostileServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def endless(piece: bytes = b" " * (1 << 16)) -> Iterable[bytes]:
    """Return an endless body that repeats this piece."""
    return itertools.repeat(piece)


def gzip_bomb(size: int) -> bytes:
    """Return a small gzip file that decompresses to this number of spaces."""
    compressor = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    pieces = (compressor.compress(b" " * (1 << 20)) for _ in range(size >> 20))
    return b"".join([*pieces, compressor.flush()])
