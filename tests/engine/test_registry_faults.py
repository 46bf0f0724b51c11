"""Failing registries: faults that Prefect retries, faults that end the build, and errors of other kinds."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import http.server
import io
import os
import re
import socket
import struct
import tarfile
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import pytest
from prefect.utilities import dockerutils
from prefect.utilities.dockerutils import BuildError, build_image
from prefect_docker.deployments.steps import build_docker_image

from engines.base_images import BaseImage, push_index
from support.names import BUSYBOX, PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from engines.private import Registry

pytestmark = pytest.mark.usefixtures("switched_on")

retries = pytest.mark.skipif(
    not hasattr(dockerutils, "_BUILD_MAX_RETRIES"), reason="this version of Prefect does not build a second time"
)

Fault = int | Literal["reset", "stall", "silence"]


@dataclass
class FaultProxy:
    """A proxy for a registry that fails some requests and passes on the others."""

    registry: str
    fault: Fault
    """The fault: a status code, a reset connection, half of a response and then silence, or no response."""
    where: str
    """A part of the path of the requests that fail."""
    fails: Callable[[], bool]
    """Whether such a request fails now. Newer engines send it several times in one build."""
    address: str = ""
    asked: list[str] = field(default_factory=list)
    """The requests with such a path."""
    over: threading.Event = field(default_factory=threading.Event)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultProxy

    def handle(self) -> None:
        # Engines try TLS first. They switch to plain HTTP only after a response in HTTP.
        with suppress(ConnectionError):
            if self.connection.recv(1, socket.MSG_PEEK) == b"\x16":
                self.wfile.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            else:
                super().handle()

    def do_GET(self) -> None:
        fault: Fault | None = None
        if self.proxy.where in self.path:
            self.proxy.asked.append(f"{self.command} {self.path}")
            fault = self.proxy.fault if self.proxy.fails() else None
        if fault == "silence":
            self.proxy.over.wait()
        elif fault == "reset":
            self._reset()
        elif isinstance(fault, int):
            self._answer(fault, {}, b'{"errors":[{"code":"UNKNOWN","message":"as the test wants it"}]}')
        else:
            self._hand_on(stalls=fault == "stall")

    do_HEAD = do_GET  # noqa: N815 the name is http.server's

    def _hand_on(self, *, stalls: bool) -> None:
        registry = http.client.HTTPConnection(self.proxy.registry, timeout=60)
        registry.request(self.command, self.path, headers={**self.headers, "Host": self.proxy.registry})
        answer = registry.getresponse()
        kept = ("Content-Type", "Content-Length", "Docker-Content-Digest", "Docker-Distribution-Api-Version")
        headers = {name: value for name, value in answer.getheaders() if name in kept}
        body = answer.read()
        self._answer(answer.status, headers, body[: len(body) // 2] if stalls else body)
        if stalls:
            self.wfile.flush()
            self.proxy.over.wait()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the name is http.server's
        """Do not log requests."""


@contextmanager
def failing(
    registry: Registry, fault: Fault, where: str = "/manifests/", fails: Callable[[], bool] = lambda: True
) -> Iterator[FaultProxy]:
    proxy = FaultProxy(registry.address, fault, where, fails)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        proxy.address = f"127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield proxy
        proxy.over.set()
        server.shutdown()


@dataclass
class Attempts:
    """A build with Prefect, and the number of times that buildx was run for it."""

    context: Path
    stream: io.StringIO = field(default_factory=io.StringIO)
    begun: int = 0
    """The number of attempts of a Prefect version that retries."""

    def build(self, dockerfile: str, **options: Any) -> str:
        (self.context / "Dockerfile").write_text(dockerfile)
        return build_image(self.context, stream_progress_to=self.stream, pull=True, **options)

    @property
    def count(self) -> int:
        return self.stream.getvalue().count("#0 building with")


@pytest.fixture
def attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempts:
    monkeypatch.setattr(dockerutils, "_BUILD_RETRY_DELAY_BASE", 0, raising=False)
    monkeypatch.chdir(tmp_path)
    attempts = Attempts(tmp_path)
    once = getattr(dockerutils, "_build_image_once", None)

    def counted(*args: Any, **options: Any) -> Any:
        attempts.begun += 1
        return once(*args, **options)  # type: ignore[misc]

    if once:
        monkeypatch.setattr(dockerutils, "_build_image_once", counted)
    return attempts


@pytest.fixture
def registry(registry: Registry, engine_is_here: None) -> Registry:  # noqa: ARG001 the proxy in front listens here
    return registry


def fresh_base(registry: Registry) -> tuple[str, str]:
    """Push an image that no engine has, and return its repository and the digest of its only layer."""
    content, tar = os.urandom(1_000_000), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        entry = tarfile.TarInfo("fresh")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    layer = gzip.compress(tar.getvalue(), 1)
    repository = f"fresh/{uuid4()}"
    diff_id = f"sha256:{hashlib.sha256(tar.getvalue()).hexdigest()}"
    push_index(registry.address, repository, "latest", [BaseImage("amd64", [(layer, diff_id)], {})])
    return repository, f"sha256:{hashlib.sha256(layer).hexdigest()}"


@retries
@pytest.mark.usefixtures("engine")
def test_a_registry_that_is_unavailable_twice_causes_two_retries(registry: Registry, attempts: Attempts) -> None:
    with failing(registry, 503, fails=lambda: attempts.begun <= 2) as proxy:
        image_id = attempts.build(f"FROM {proxy.address}/library/busybox\n")
    assert image_id.startswith("sha256:")
    assert attempts.count == 3


@retries
@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("fault", [500, 502, "reset"])
def test_other_temporary_faults_are_retried(registry: Registry, attempts: Attempts, fault: Fault) -> None:
    with failing(registry, fault, fails=lambda: attempts.begun == 1) as proxy:
        attempts.build(f"FROM {proxy.address}/library/busybox\n")
    assert attempts.count == 2


@retries
@pytest.mark.usefixtures("engine")
def test_a_registry_that_stays_unavailable_ends_the_build_after_the_last_retry(
    registry: Registry, attempts: Attempts, caplog: pytest.LogCaptureFixture
) -> None:
    with failing(registry, 503) as proxy, pytest.raises(BuildError) as error:
        attempts.build(f"FROM {proxy.address}/library/busybox\n")
    assert attempts.count == 4
    assert f"http://{proxy.address}/v2/library/busybox/manifests/latest: 503 Service Unavailable" in str(error.value)
    # The step has no output, so nothing is logged.
    assert not [record for record in caplog.records if record.name == "prefect_docker_attest"]


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("status", "words", "advice"),
    [
        (401, "401 Unauthorized", "The registry did not accept the credentials.\nTIP Run `docker login"),
        (403, "403 Forbidden", "The registry did not accept the credentials.\nTIP Run `docker login"),
        (404, "library/busybox:latest: not found", "Check the base image's name, tag and registry"),
    ],
)
def test_a_registry_that_refuses_ends_the_build_at_once(
    registry: Registry, attempts: Attempts, status: int, words: str, advice: str
) -> None:
    with failing(registry, status) as proxy, pytest.raises(BuildError) as error:
        attempts.build(f"FROM {proxy.address}/library/busybox\n")
    assert attempts.count == 1
    assert words in str(error.value)
    assert advice in str(error.value)


@retries
@pytest.mark.usefixtures("some_engine", "amd64")
def test_a_layer_that_is_unavailable_is_retried(registry: Registry, attempts: Attempts) -> None:
    # An engine with the graphdriver store requests a layer up to six times, which takes 50 seconds.
    repository, layer = fresh_base(registry)
    with failing(registry, 503, where=layer, fails=lambda: attempts.begun == 1) as proxy:
        attempts.build(f"FROM {proxy.address}/{repository}\nCOPY Dockerfile /\n")
    assert attempts.count == 2


@pytest.mark.usefixtures("some_engine", "amd64")
def test_buildkit_requests_a_layer_again_after_a_connection_reset(registry: Registry, attempts: Attempts) -> None:
    repository, layer = fresh_base(registry)
    with failing(registry, "reset", where=layer, fails=lambda: len(proxy.asked) == 1) as proxy:
        attempts.build(f"FROM {proxy.address}/{repository}\nCOPY Dockerfile /\n")
    assert len(proxy.asked) >= 2
    assert attempts.count == 1


@pytest.mark.usefixtures("some_engine", "amd64")
def test_a_download_that_is_stuck_is_stopped_by_timeout(registry: Registry, attempts: Attempts) -> None:
    # The timeout is longer than five seconds, after which buildx repeats the progress of the download.
    repository, layer = fresh_base(registry)
    with failing(registry, "stall", where=layer) as proxy, pytest.raises(BuildError) as error:
        attempts.build(f"FROM {proxy.address}/{repository}\nCOPY Dockerfile /\n", timeout=7)
    assert re.fullmatch(
        r"The build was stopped: it printed nothing new for 7 seconds \(timeout=7\); "
        r"running: \[1/2\] FROM 127\..*\.\.\.\n"
        r"TIP If it only needs more time, increase or omit timeout\.",
        str(error.value),
    )
    assert attempts.count == 1


@pytest.mark.usefixtures("engine")
def test_a_registry_that_does_not_answer_is_stopped_by_timeout(registry: Registry, attempts: Attempts) -> None:
    with failing(registry, "silence") as proxy, pytest.raises(BuildError, match=r"nothing new for 1\.5 seconds"):
        attempts.build(f"FROM {proxy.address}/library/busybox\n", timeout=(60, 1.5))


WORDS = [
    "Connection reset by peer", "Permission denied", "503 Service Unavailable", "502 Bad Gateway", "ERROR: denied",
    "500 Internal Server Error", "dial tcp: i/o timeout", "TLS handshake timeout", "context deadline exceeded",
]  # fmt: skip
RUNS = {
    "prints it": "RUN {once} && cat /words && exit 3",
    "has it in its command": "RUN {once} && echo '{words}' && exit 3",
    "has it in a script": "RUN {mount} <<SCRIPT\necho >> /once/runs\necho '{words}'\nexit 3\nSCRIPT",
    "is run by a shell called that": 'RUN {once}\nSHELL ["/bin/sh", "-c", "exit 3;", "{words}"]\nRUN true',
}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("way", RUNS)
def test_output_of_a_command_does_not_count_as_a_registry_fault(attempts: Attempts, way: str) -> None:
    # One build prints all words.
    (attempts.context / "words").write_text("\n".join(WORDS))
    cache = str(uuid4())
    mount = f"--mount=type=cache,id={cache},target=/once"
    run = RUNS[way].format(mount=mount, once=f"{mount} echo >> /once/runs", words=" ".join(WORDS))
    with pytest.raises(BuildError) as error:
        attempts.build(f"FROM {BUSYBOX}\nCOPY words /\n{run}\n")
    message = str(error.value).lower()
    assert [each for each in [*WORDS, "denied"] if each.lower() in message] == []
    assert "returned a non-zero code: 3" in message
    assert attempts.count == 1
    assert runs_of(cache, attempts) == 1


def runs_of(cache: str, attempts: Attempts) -> int:
    """Return how often a command ran that adds a line to a file in this cache of BuildKit."""
    mark = str(uuid4())
    count = f"RUN --mount=type=cache,id={cache},target=/once echo {mark} $(wc -l < /once/runs)"
    attempts.build(f"FROM {BUSYBOX}\n{count}\n")
    (line,) = [line for line in attempts.stream.getvalue().splitlines() if f" {mark} " in line and "wc" not in line]
    return int(line.rpartition(" ")[2])


@pytest.mark.usefixtures("engine")
def test_a_command_that_prints_denied_causes_no_hint_about_docker_login(attempts: Attempts) -> None:
    (attempts.context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN echo 'Permission denied' >&2; exit 1\n")
    with pytest.raises(BuildError) as error:
        build_docker_image(f"{PREFIX}/denied", dockerfile="Dockerfile", tag="x", pull=False, ignore_cache=True)
    assert "docker login" not in str(error.value)
    assert "returned a non-zero code: 1" in str(error.value)
