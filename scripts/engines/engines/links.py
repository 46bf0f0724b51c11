"""Links between machines, which count the bytes that they carry and can be slow; and a builder at the end of one.

The BuildKit inside an engine with the containerd image store serves as a daemon of its own: buildx reaches it with the
driver `remote`, through a socket that passes each connection on to the engine's API.
"""

from __future__ import annotations

import contextlib
import math
import socket
import socketserver
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from engines.private import Engine

_PIECE = 1 << 16  # bytes
_UPGRADE = b"POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


@dataclass
class _Direction:
    """One direction of a link, with the time from which it is free."""

    rate: float | None
    carried: int = 0
    free: float = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def carry(self, length: int) -> None:
        with self.lock:
            self.carried += length
            if self.rate is None:
                return
            self.free = max(self.free, time.monotonic()) + length / self.rate
            wait = self.free - time.monotonic()
        time.sleep(max(wait, 0))


class Link:
    """A link that several connections share.

    Args:
        rate: bytes a second in each direction; None: as fast as the machine is

    Attributes:
        breaks_after: number of bytes after which it breaks all connections, also new ones
    """

    def __init__(self, rate: float | None = None) -> None:
        self.breaks_after = math.inf
        self._there, self._back = _Direction(rate), _Direction(rate)
        self._ends: list[socket.socket] = []

    @property
    def carried(self) -> int:
        """Bytes that it has carried, in both directions."""
        return self._there.carried + self._back.carried

    def join(self, near: socket.socket, far: socket.socket) -> None:
        """Pass on what two sockets get, until both have ended."""
        self._ends += [near, far]
        there = threading.Thread(target=self._copy, args=(near, far, self._there), daemon=True)
        there.start()
        self._copy(far, near, self._back)
        there.join()

    def cut(self) -> None:
        """Break all connections."""
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _copy(self, source: socket.socket, target: socket.socket, direction: _Direction) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE):
                direction.carry(len(piece))
                if self.carried > self.breaks_after:
                    self.cut()
                    break
                target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


class _Servers(socketserver.ThreadingMixIn):
    request_queue_size = 50  # many builds connect at once
    daemon_threads = True
    block_on_close = False


class _UnixServer(_Servers, socketserver.UnixStreamServer):
    pass


class _TcpServer(_Servers, socketserver.TCPServer):
    pass


@contextlib.contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    with server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield
        server.shutdown()


@contextlib.contextmanager
def buildkit(engine: Engine, path: Path, link: Link) -> Iterator[str]:
    """Serve an engine's BuildKit at the other end of a link; its address is one for buildx's driver `remote`.

    Args:
        engine: with the containerd image store; another one's BuildKit exports no images.
        path: of the socket that is served.
        link: between buildx and the engine.
    """

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as far:
                far.connect(engine.host.removeprefix("unix://"))
                far.sendall(_UPGRADE)
                answer = b""
                while not answer.endswith(b"\r\n\r\n") and (byte := far.recv(1)):
                    answer += byte
                link.join(self.request, far)

    with _serving(_UnixServer(str(path), Handler)):
        yield f"unix://{path}"


@contextlib.contextmanager
def proxy(port: int, others: Link, processes: Sequence[int], theirs: Link) -> Iterator[int]:
    """Serve a port of 127.0.0.1 over two links, at another port of it.

    Args:
        port: port that is served.
        others: link of all processes but those below.
        processes: ids of processes that have a link of their own.
        theirs: that link.
    """

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            ends = self.client_address[1], near
            link = theirs if any(_is_connected(process, *ends) for process in processes) else others
            with socket.create_connection(("127.0.0.1", port)) as far:
                link.join(self.request, far)

    server = _TcpServer(("127.0.0.1", 0), Handler)
    near = int(server.server_address[1])
    with _serving(server):
        yield near


def _is_connected(process: int, port: int, to: int) -> bool:
    """Whether a process has a connection between these ports. All processes would take long to look at."""
    connections = psutil.Process(process).net_connections("tcp4")
    ends = ((connection.laddr, connection.raddr) for connection in connections)
    return any(near and far and (near[1], far[1]) == (port, to) for near, far in ends)
