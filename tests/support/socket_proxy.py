"""A socket in front of an engine's, which refuses some requests: like docker-socket-proxy, which other programs use."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_BODY = b"<html><body><h1>403 Forbidden</h1>\nRequest forbidden by administrative rules.\n</body></html>\n"
_REFUSAL = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\nConnection: close\r\nContent-Type: text/html\r\n\r\n" % len(_BODY)
)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 50


@contextlib.contextmanager
def socket_proxy(path: Path, engine: str, refuses: Callable[[str, str], bool]) -> Iterator[list[str]]:
    """Serve a socket. It gives the list of the requests so far, such as ``POST /grpc``.

    Args:
        path: path of the socket
        engine: address of the engine
        refuses: returns whether a request is refused, from its method and its path
    """
    requests: list[str] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = self.request.recv(1 << 16)
                if not piece:
                    return
                head += piece
            method, target = head.split(b"\r\n")[0].decode().split()[:2]
            requests.append(f"{method} {target}")
            if refuses(method, target):
                self.request.sendall(_REFUSAL + _BODY)
                return
            if b"pgrade:" not in head:  # each connection carries one request
                head = head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            with socket.socket(socket.AF_UNIX) as far:
                far.connect(engine.removeprefix("unix://"))
                far.sendall(head)
                threading.Thread(target=_copy, args=(self.request, far), daemon=True).start()
                _copy(far, self.request)

    with _Server(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield requests
        server.shutdown()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
