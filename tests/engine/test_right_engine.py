"""The image is in the engine that Prefect pushes from, whatever contexts and builders there are, or the build fails."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import socketserver
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prefect.utilities.dockerutils import docker_client

from both_builders import Failed, build
from conftest import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Setting
    from private_docker import Engine, PrivateDocker, Store

UNIQUE = str(Path(__file__).parents[1] / "contexts/unique")

# What the docker CLI and docker-py 7.2 look at, in this order; docker-py 7.1 knows the first and the last. The standard
# socket is the graphdriver engine's, the context `other` the containerd engine's.
WAYS: dict[str, tuple[dict[str, str], Store, Store]] = {
    "nothing said": ({}, "graphdriver", "graphdriver"),
    "the current context": ({"DOCKER_CONFIG": "USING_OTHER"}, "containerd", "graphdriver"),
    "DOCKER_CONTEXT": ({"DOCKER_CONTEXT": "other"}, "containerd", "graphdriver"),
    "DOCKER_HOST": ({"DOCKER_HOST": "GRAPHDRIVER", "DOCKER_CONFIG": "USING_OTHER"}, "graphdriver", "graphdriver"),
    "DOCKER_HOST of the other": ({"DOCKER_HOST": "CONTAINERD", "DOCKER_CONTEXT": "other"}, "containerd", "containerd"),
    "DOCKER_CONTEXT default": (
        {"DOCKER_CONTEXT": "default", "DOCKER_CONFIG": "USING_OTHER"},
        "graphdriver",
        "graphdriver",
    ),
}
BUILD_EACH_WAY = """
import json, os, sys
import docker
from prefect.utilities.dockerutils import build_image, docker_client

context, ways = json.load(sys.stdin)
built = {}
for tag, environment in ways.items():
    before = dict(os.environ)
    os.environ.update(environment)
    image = build_image(context, tag=tag)
    with docker_client() as client:
        built[tag] = client.images.get(tag).id == image
    os.environ.clear()
    os.environ.update(before)
print(docker.__version__, json.dumps(built))
"""


def configuration(engine: Engine, folder: Path) -> str:
    """A configuration of the docker CLI that tests may change."""
    (folder / "cli-plugins").mkdir(parents=True)
    plugin = "cli-plugins/docker-buildx"
    (folder / plugin).symlink_to(Path(engine.environment["DOCKER_CONFIG"]) / plugin)
    # Without the file, docker-py 7.2 does not find the contexts beside it; the docker CLI does.
    (folder / "config.json").write_text("{}")
    return str(folder)


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module", params=["7.1.0", ""], ids=["docker-py 7.1", "docker-py of today"])
def each_way(
    request: pytest.FixtureRequest, private_docker: PrivateDocker, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bool, str]:
    """Whether docker-py follows contexts, and the name of the images, to which the number of each way is the tag."""
    folder = tmp_path_factory.mktemp("docker-py")
    if request.param:
        install = ("-m", "uv", "pip", "install", "--quiet", "--no-config", "--no-deps", f"--target={folder}/packages")
        done = subprocess.run(
            [sys.executable, *install, f"docker=={request.param}"], check=False, capture_output=True, text=True
        )
        if done.returncode:
            missing(f"docker-py {request.param} cannot be installed: {done.stderr}")
    engines = private_docker.engines
    environment = {name: value for name, value in engines["containerd"].environment.items() if name != "DOCKER_HOST"}
    using_other = configuration(engines["containerd"], folder / "using-other")
    environment["DOCKER_CONFIG"] = configuration(engines["containerd"], folder / "default")
    for config, use in ((environment["DOCKER_CONFIG"], "default"), (using_other, "other")):
        for command in (("create", "other", f"--docker=host={engines['containerd'].host}"), ("use", use)):
            there = {**environment, "DOCKER_CONFIG": config}
            subprocess.run(["docker", "context", *command], env=there, check=True, capture_output=True)
    values = {"USING_OTHER": using_other, **{store.upper(): engine.host for store, engine in engines.items()}}
    name = f"right-engine-{uuid4()}"
    ways = {
        f"{name}:{number}": {key: values.get(value, value) for key, value in way[0].items()}
        for number, way in enumerate(WAYS.values())
    }
    # In a /run of its own, the standard socket is an engine's.
    own_run = 'mount -t tmpfs tmpfs /run && ln -s "$0" /run/docker.sock && exec "$@"'
    standard = engines["graphdriver"].host.removeprefix("unix://")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", own_run, standard, sys.executable, "-c", BUILD_EACH_WAY],
        input=json.dumps([UNIQUE, ways]),
        env={**environment, "PYTHONPATH": f"{folder}/packages", "PREFECT_DOCKER_DISABLE_ATTESTATIONS": "true"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    version, _, built = done.stdout.partition(" ")
    assert request.param in version
    assert json.loads(built) == dict.fromkeys(ways, True)
    return tuple(map(int, version.split("."))) >= (7, 2), name


@pytest.mark.parametrize("way", WAYS)
def test_the_engine_is_the_one_that_docker_py_finds(
    way: str, each_way: tuple[bool, str], private_docker: PrivateDocker
) -> None:
    follows_contexts, name = each_way
    tag = f"{name}:{list(WAYS).index(way)}"
    expected = WAYS[way][1 if follows_contexts else 2]
    found = [
        store
        for store, engine in private_docker.engines.items()
        if engine.run("docker", "image", "inspect", tag, check=False).returncode == 0
    ]
    assert found == [expected]


class BuildKit(socketserver.ThreadingUnixStreamServer):
    """An engine's BuildKit as a daemon of its own: what comes at a socket goes to `/grpc` of the engine's API."""

    daemon_threads = True

    def __init__(self, engine: Engine, path: Path) -> None:
        super().__init__(str(path), _Relay)
        self.address = f"unix://{path}"
        self.engine = engine.host.removeprefix("unix://")


class _Relay(socketserver.BaseRequestHandler):
    server: BuildKit

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self.server.engine)
            engine.sendall(b"POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += engine.recv(1)
            threading.Thread(target=self._copy, args=(self.request, engine), daemon=True).start()
            self._copy(engine, self.request)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def own_configuration(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", configuration(engine, tmp_path / "configuration"))


@pytest.fixture
def far(own_configuration: None, private_docker: PrivateDocker, tmp_path: Path) -> Iterator[str]:  # noqa: ARG001
    """The name of a builder outside the engine: driver `remote`."""
    with BuildKit(private_docker.engines["containerd"], tmp_path / "buildkit.sock") as buildkit:
        threading.Thread(target=buildkit.serve_forever, daemon=True).start()
        docker("buildx", "create", "--name=far", "--driver=remote", buildkit.address)
        yield "far"
        buildkit.shutdown()


def choose(builder: str, choice: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Choose a builder as users of docker do, or by the options that this returns."""
    if choice == "docker buildx use":
        docker("buildx", "use", builder)
    elif choice == "BUILDX_BUILDER":
        monkeypatch.setenv("BUILDX_BUILDER", builder)
    return {"builder": builder} if choice == "builder=" else {}


@pytest.mark.parametrize("choice", ["docker buildx use", "BUILDX_BUILDER", "builder="])
@pytest.mark.parametrize("tag", ["right-engine:far", None], ids=["tagged", "untagged"])
def test_a_builder_elsewhere_loads_into_this_engine(
    choice: str, tag: str | None, engine: Engine, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = choose(far, choice, monkeypatch)
    if tag:
        build(switched_on=False, fileobj=io.BytesIO(b"FROM busybox\n"), tag=tag)  # an older image of that name
        options["tag"] = tag
    built = build(switched_on=True, path=UNIQUE, **options)
    # Not always the first line: buildx's log may come before.
    assert any(f'with "{far}"' in event.get("stream", "") for event in built.events)
    said = engine.run("docker", "run", "--rm", tag or built.image, "cat", "/unique").stdout
    assert repr(said) in built.holds["/unique"]
    assert (
        engine.run("docker", "image", "inspect", "--format={{.Id}}", tag or built.image).stdout.strip() == built.image
    )


in_graphdriver_engine = pytest.mark.parametrize("engine", ["graphdriver"], indirect=True)


@in_graphdriver_engine
def test_a_base_image_that_only_this_engine_has(engine: Engine, far: str) -> None:
    build(switched_on=False, fileobj=io.BytesIO(b"FROM busybox\n"), tag="only/here:1")
    assert build(switched_on=True, fileobj=io.BytesIO(b"FROM only/here:1\n"))
    assert engine
    with pytest.raises(Failed, match=r"(?s)only/here:1: .* does not see images that only this engine has"):
        build(switched_on=True, fileobj=io.BytesIO(b"FROM only/here:1\n"), builder=far)


@pytest.fixture
def other(own_configuration: None, private_docker: PrivateDocker) -> str:  # noqa: ARG001
    """The name of a context, which is also that of a builder: the engine with the containerd image store."""
    docker("context", "create", "other", f"--docker=host={private_docker.engines['containerd'].host}")
    return "other"


@in_graphdriver_engine
@pytest.mark.parametrize("choice", ["BUILDX_BUILDER", "builder="])
def test_another_engine_as_builder_is_refused(
    choice: str, engine: Engine, other: str, private_docker: PrivateDocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = choose(other, choice, monkeypatch)
    tag = f"right-engine:{uuid4()}"
    with pytest.raises(Failed, match=r'to switch to context "other"'):
        build(switched_on=True, path=UNIQUE, tag=tag, **options)
    assert engine
    for each in private_docker.engines.values():
        assert each.run("docker", "image", "inspect", tag, check=False).returncode


@in_graphdriver_engine
def test_an_image_in_another_engine_is_an_error_that_names_this_one_and_the_builder(
    engine: Engine, private_docker: PrivateDocker, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    with setting(True), docker_client() as client:
        # What the program that uses Prefect changes after that, only the docker CLI sees.
        monkeypatch.setenv("DOCKER_HOST", private_docker.engines["containerd"].host)
        events = list(client.api.build(path=UNIQUE, tag="right-engine:elsewhere", decode=True))
    error = events[-1]["error"]
    assert "does not hold its image (sha256:" in error
    assert engine.host in error
    assert "Name: default, Driver: docker" in error
    assert engine.run("docker", "image", "inspect", "right-engine:elsewhere", check=False).returncode
