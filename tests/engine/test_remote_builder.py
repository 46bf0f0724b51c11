"""Builds by a builder outside the engine, driver `remote`, which loads its images into the engine."""

from __future__ import annotations

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prefect.docker import DockerImage
from prefect.utilities.dockerutils import build_image
from prefect_docker.deployments.steps import build_docker_image, push_docker_image

from engines import machine, private
from engines.contents import remove_cache_since
from engines.machine import free_port
from engines.published import Published
from support.both_builders import Failed, build
from support.names import BUSYBOX
from support.remote_builder import remote_builder
from support.shipped import COMMAND
from support.ways import HAS_BUILD_BACKEND, WAYS, settings

if TYPE_CHECKING:
    from pathlib import Path

    from engines.private import Engine, PrivateDocker, Registry
    from support.remote_builder import RemoteBuilder

pytestmark = pytest.mark.usefixtures("switched_on", "engine")


@pytest.fixture
def name(registry: Registry) -> str:
    return f"{registry.address}/remote/{uuid4()}:v1"


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY new /new\nRUN uname -m > /machine\n")
    (folder / "new").write_text(str(uuid4()))
    monkeypatch.chdir(folder)
    return folder


def content(engine: Engine, image: str, path: str) -> str:
    """A file in an image of the engine."""
    container = engine.run("docker", "create", image).stdout.strip()
    try:
        return engine.run("docker", "cp", f"{container}:{path}", "-").stdout
    finally:
        engine.run("docker", "rm", container)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_builds_for_another_platform(
    way: str, name: str, context: Path, engine: Engine, far_in_use: RemoteBuilder
) -> None:
    WAYS[way](name, context, platform="linux/arm64")
    assert far_in_use.link.carried > 0
    assert "aarch64" in content(engine, name, "/machine")
    engine.run("docker", "push", name)
    published = Published(name)
    assert published.is_one_manifest
    assert published.config()["architecture"] == "arm64"
    assert all(published.layers_match())


@pytest.mark.usefixtures("far_in_use")
def test_secrets_and_build_contexts_reach_the_builder(
    name: str, context: Path, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "file").write_text("from the other context")
    (context / "Dockerfile").write_text(
        f"FROM {BUSYBOX}\nCOPY --from=more file /file\n"
        "RUN --mount=type=secret,id=token tr a-z A-Z < /run/secrets/token > /upper\n"
    )
    monkeypatch.setenv("TOKEN", "a-secret")
    build_image(context, tag=name, secrets=["id=token,env=TOKEN"], build_contexts={"more": str(tmp_path / "more")})
    assert "from the other context" in content(engine, name, "/file")
    assert "A-SECRET" in content(engine, name, "/upper")


def test_a_cache_in_a_registry_is_read_and_written(
    name: str, context: Path, engine: Engine, far_in_use: RemoteBuilder
) -> None:
    (context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN cat /proc/sys/kernel/random/uuid > /unique\n")
    cache = f"type=registry,ref={name}-cache"
    build_image(context, tag=name, cache_to=cache)
    first = content(engine, name, "/unique")
    remove_cache_since(far_in_use.engine, frozenset())
    build_image(context, tag=name, cache_from=[cache])
    assert content(engine, name, "/unique") == first


@pytest.mark.usefixtures("far_in_use")
def test_docker_image_builds_and_pushes(name: str, context: Path) -> None:
    image = DockerImage(name, dockerfile="Dockerfile", context=context)
    image.build()
    image.push()
    assert Published(name).is_one_manifest
    assert all(Published(name).layers_match())


@pytest.mark.usefixtures("far_in_use", "context")
def test_the_steps_build_tag_and_push(name: str) -> None:
    repository, _, tag = name.rpartition(":")
    build_docker_image(repository, tag=tag, dockerfile="Dockerfile", additional_tags=["v2"], ignore_cache=True)
    push_docker_image(repository, tag=tag, additional_tags=["v2"], ignore_cache=True)
    for pushed in (name, f"{repository}:v2"):
        assert Published(pushed).is_one_manifest
        assert all(Published(pushed).layers_match())


@pytest.mark.skipif(not HAS_BUILD_BACKEND, reason="this Prefect has no build_backend")
@pytest.mark.parametrize("builder", ["far_in_use", "fleet_in_use"])
def test_build_backend_pushes_two_platforms(
    builder: str, name: str, context: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(builder)
    options: dict[str, Any] = {"build_backend": "buildx", "platforms": ["linux/amd64", "linux/arm64"], "push": True}
    DockerImage(name, dockerfile="Dockerfile", context=context, **options).build()
    assert Published(name).platforms() == ["linux/amd64", "linux/arm64"]


@pytest.mark.usefixtures("far_in_use")
def test_inspect_finds_the_image_sound(name: str, context: Path) -> None:
    image = DockerImage(name, dockerfile="Dockerfile", context=context, platform="linux/arm64")
    image.build()
    image.push()
    inspected = subprocess.run(
        [COMMAND, "inspect", "--verify-layers", "--fail-on-attestations", name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert inspected.returncode == 0, inspected.stdout + inspected.stderr
    assert "linux/arm64" in inspected.stdout


@pytest.mark.usefixtures("far_in_use")
@pytest.mark.parametrize("push_from_builder", [False, True])
def test_parallel_builds_return_their_own_images(name: str, tmp_path: Path, *, push_from_builder: bool) -> None:
    pushes = threading.Lock()  # simultaneous pushes of a graphdriver engine can fail

    def deploy(number: int) -> str:
        folder = tmp_path / f"context-{number}"
        folder.mkdir()
        (folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY number /number\nLABEL number={number}\n")
        (folder / "number").write_text(str(number))
        with settings(push_from_builder=push_from_builder, disable_attestations=True):
            # In Prefect 3.1, DockerImage can only build the current folder, which threads share.
            build_image(folder, tag=f"{name}-{number}", pull=True)
            with pushes:
                DockerImage(f"{name}-{number}").push()
        label: str = Published(f"{name}-{number}").config()["config"]["Labels"]["number"]
        return label

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(deploy, range(8))) == [str(number) for number in range(8)]


def failure(builder: str, **options: Any) -> str:
    """The error of a build, without Prefect's retries."""
    with pytest.raises(Failed) as failed:
        build(switched_on=True, builder=builder, **options)
    return str(failed.value)


def assert_named(builder: str, error: str) -> None:
    assert f"The builder {builder} (driver remote) is outside this Docker Engine.\n" in error


def test_a_builder_that_is_gone_is_named(
    context: Path, own_configuration: Path, builder_machine: Engine, tmp_path: Path
) -> None:
    assert own_configuration
    with remote_builder(builder_machine, tmp_path) as builder:
        pass
    assert_named(builder.name, failure(builder.name, path=str(context)))


def test_a_builder_that_is_killed_is_named(
    context: Path, own_configuration: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert own_configuration
    (context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN echo started; sleep 60\n")
    suite = request.config.getoption("--suite") or "trixie"
    with (
        private.start(suite, ["containerd"]) as short_lived,
        remote_builder(short_lived.engines["containerd"], tmp_path) as builder,
    ):
        killer = threading.Timer(5, machine.stop_daemons, [short_lived.folder])
        killer.start()
        error = failure(builder.name, path=str(context))
        killer.join()
    assert_named(builder.name, error)


@pytest.mark.usefixtures("far_in_use")
def test_a_builder_that_does_not_reach_the_registry_is_named(context: Path, far: RemoteBuilder) -> None:
    image = f"127.0.0.1:{free_port()}/base:1"
    (context / "Dockerfile").write_text(f"FROM {image}\n")
    error = failure(far.name, path=str(context))
    assert f"failed to resolve source metadata for {image}" in error
    assert_named(far.name, error)


def test_a_builder_that_does_not_reach_the_registry_of_the_image_is_named(context: Path, far: RemoteBuilder) -> None:
    name = f"127.0.0.1:{free_port()}/app:1"
    with settings(push_from_builder=True):
        error = failure(far.name, path=str(context), tag=name)
    assert "failed to push" in error
    assert "The builder pushes the image itself, because PREFECT_DOCKER_PUSH_FROM_BUILDER is on" in error
    assert_named(far.name, error)


@pytest.mark.parametrize("push_from_builder", [False, True])
def test_a_builder_without_the_exporter_is_named(
    context: Path,
    name: str,
    own_configuration: Path,
    private_docker: PrivateDocker,
    tmp_path: Path,
    *,
    push_from_builder: bool,
) -> None:
    assert own_configuration
    # The BuildKit of that image store exports to its engine only.
    with (
        remote_builder(private_docker.engines["graphdriver"], tmp_path) as builder,
        settings(push_from_builder=push_from_builder),
    ):
        error = failure(builder.name, path=str(context), tag=name)
    assert "could not be found" in error
    assert "This builder cannot export images" in error
    assert_named(builder.name, error)


def test_a_base_image_that_only_the_engine_has_is_an_error_that_names_the_builder(
    context: Path, engine: Engine, far: RemoteBuilder
) -> None:
    base = f"pda-tests/only-in-the-engine:{uuid4()}"
    engine.run("docker", "pull", BUSYBOX)
    engine.run("docker", "tag", BUSYBOX, base)
    (context / "Dockerfile").write_text(f"FROM {base}\n")
    error = failure(far.name, path=str(context))
    assert "If only this Docker Engine has the base image" in error
    assert_named(far.name, error)
