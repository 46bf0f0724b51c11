"""The image is in the engine from which Prefect pushes, with any context and builder, or the build fails."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prefect.utilities.dockerutils import docker_client

from conftest import missing
from engines.contents import remove_cache_since
from engines.published import Published
from prefect_docker_attest.errors import OptionError
from support.both_builders import Failed, build
from support.names import BUSYBOX, CONTEXTS, PREFIX
from support.remote_builder import configuration
from support.ways import settings

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Setting
    from engines.private import Engine, PrivateDocker, Registry, Store
    from support.remote_builder import RemoteBuilder

UNIQUE = str(CONTEXTS / "unique")

# The docker CLI and docker-py 7.2 use these in this order. docker-py 7.1 uses only the first and the last. The standard
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


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module", params=["7.1.0", ""], ids=["docker-py 7.1", "docker-py of today"])
def each_way(
    request: pytest.FixtureRequest, private_docker: PrivateDocker, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bool, str]:
    """Whether docker-py uses contexts, and the name of the images. The number of each way is its tag."""
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
    name = f"{PREFIX}/right-engine-{uuid4()}"
    ways = {
        f"{name}:{number}": {key: values.get(value, value) for key, value in way[0].items()}
        for number, way in enumerate(WAYS.values())
    }
    # In a separate /run, the standard socket is that of an engine.
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


def choose(builder: str, choice: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Select a builder like users of docker, or with the options that this returns."""
    if choice == "docker buildx use":
        docker("buildx", "use", builder)
    elif choice == "BUILDX_BUILDER":
        monkeypatch.setenv("BUILDX_BUILDER", builder)
    return {"builder": builder} if choice == "builder=" else {}


@pytest.mark.parametrize("choice", ["docker buildx use", "BUILDX_BUILDER", "builder="])
@pytest.mark.parametrize("tag", [f"{PREFIX}/right-engine:far", None], ids=["tagged", "untagged"])
def test_a_builder_elsewhere_loads_into_this_engine(
    choice: str, tag: str | None, engine: Engine, far: RemoteBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = choose(far.name, choice, monkeypatch)
    if tag:
        # The engine has an older image with this name.
        build(switched_on=False, fileobj=io.BytesIO(f"FROM {BUSYBOX}\n".encode()), tag=tag)
        options["tag"] = tag
    built = build(switched_on=True, path=UNIQUE, **options)
    # Lines of buildx's log can come before it.
    assert any(f'with "{far.name}"' in event.get("stream", "") for event in built.events)
    content = engine.output_of(tag or built.image, "cat", "/unique")
    assert repr(content) in built.files["/unique"]
    assert (
        engine.run("docker", "image", "inspect", "--format={{.Id}}", tag or built.image).stdout.strip() == built.image
    )


ONLY_HERE = f"{PREFIX}/only-here:1"


def test_settings_reach_a_builder_elsewhere(far_in_use: RemoteBuilder, registry: Registry) -> None:
    name = f"{registry.address}/far/{uuid4()}"
    cache = "type=registry,ref={image}:{platform}"
    with settings(platform="linux/arm64", cache_from=cache, cache_to=cache, disable_attestations=True):
        built = build(switched_on=True, path=UNIQUE, tag=f"{name}:1", nocache=False)
        remove_cache_since(far_in_use.engine, frozenset())
        again = build(switched_on=True, path=UNIQUE, tag=f"{name}:2", nocache=False)
    assert built.config["Architecture"] == "arm64"
    assert again.files["/unique"] == built.files["/unique"]
    assert Published(f"{name}:linux-arm64").manifest()


@pytest.mark.parametrize("wanted", ["docker", "oci"])
def test_media_types_of_a_builder_elsewhere(
    wanted: str, engine: Engine, far: RemoteBuilder, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(far.name, "docker buildx use", monkeypatch)
    name = f"{registry.address}/far/{uuid4()}:1"
    with settings(media_types=wanted, disable_attestations=True):
        if engine.store == "graphdriver" and wanted == "oci":
            with pytest.raises(OptionError, match="PREFECT_DOCKER_MEDIA_TYPES='oci'"):
                build(switched_on=True, path=UNIQUE, tag=name)
            return
        build(switched_on=True, path=UNIQUE, tag=name)
    engine.run("docker", "push", name)
    assert ("vnd.oci." in Published(name).manifest()["mediaType"]) == (wanted == "oci")


in_graphdriver_engine = pytest.mark.parametrize("engine", ["graphdriver"], indirect=True)


@in_graphdriver_engine
def test_a_base_image_that_only_this_engine_has(engine: Engine, far: RemoteBuilder) -> None:
    build(switched_on=False, fileobj=io.BytesIO(f"FROM {BUSYBOX}\n".encode()), tag=ONLY_HERE)
    assert build(switched_on=True, fileobj=io.BytesIO(f"FROM {ONLY_HERE}\n".encode()))
    assert engine
    with pytest.raises(
        Failed,
        match=r"(?s)only-here:1: .*\nTIP .* If only this Docker Engine has the base image, push it to a registry",
    ):
        build(switched_on=True, fileobj=io.BytesIO(f"FROM {ONLY_HERE}\n".encode()), builder=far.name)


@pytest.fixture
def other(own_configuration: Path, private_docker: PrivateDocker) -> str:  # noqa: ARG001
    """The name of a context, which is also that of a builder: the engine with the containerd image store."""
    docker("context", "create", "other", f"--docker=host={private_docker.engines['containerd'].host}")
    return "other"


@in_graphdriver_engine
@pytest.mark.parametrize("choice", ["BUILDX_BUILDER", "builder="])
def test_another_engine_as_builder_is_refused(
    choice: str, engine: Engine, other: str, private_docker: PrivateDocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = choose(other, choice, monkeypatch)
    tag = f"{PREFIX}/right-engine:{uuid4()}"
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
        # Only the docker CLI sees changes of the environment after the client was opened.
        monkeypatch.setenv("DOCKER_HOST", private_docker.engines["containerd"].host)
        events = list(client.api.build(path=UNIQUE, tag=f"{PREFIX}/right-engine:elsewhere", decode=True))
    error = events[-1]["error"]
    assert "does not hold the image sha256:" in error
    assert engine.host in error
    assert "(builder default, driver docker)" in error
    assert engine.run("docker", "image", "inspect", f"{PREFIX}/right-engine:elsewhere", check=False).returncode
