"""On Podman, its own builder builds: the image and the output are docker-py's, and what needs BuildKit is refused."""

from __future__ import annotations

import io
import json
import logging
import multiprocessing
import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil
import pytest
from prefect.docker import DockerImage
from prefect.utilities import dockerutils
from prefect.utilities.dockerutils import BuildError, build_image, docker_client
from prefect_docker.deployments.steps import build_docker_image, push_docker_image

from engines.published import MANIFESTS, Published
from support.names import BUSYBOX
from support.processes import wait_until
from support.remote_builder import remote_builder
from support.socket_proxy import socket_proxy
from support.ways import HAS_BUILD_BACKEND, WAYS, settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Setting
    from engines.private import Engine, PrivateDocker, Registry
    from support.podman import Podman
    from support.remote_builder import RemoteBuilder
    from support.slow_build import SlowBuild

OTHER = "linux/arm64"
needs_build_backend = pytest.mark.skipif(not HAS_BUILD_BACKEND, reason="this Prefect has no build_backend")


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "new").write_text(str(uuid4()))  # nothing of the build is cached
    (folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY new /app/new\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def name(registry: Registry) -> str:
    return f"{registry.address}/podman-{uuid4().hex[:8]}:v1"


@pytest.fixture
def outside(podman: Podman, private_docker: PrivateDocker, tmp_path: Path) -> Iterator[RemoteBuilder]:
    """A builder outside Podman."""
    assert podman
    with remote_builder(private_docker.engines["containerd"], tmp_path) as builder:
        yield builder


def _output(context: Path, **options: Any) -> str:
    stream = io.StringIO()
    build_image(context, stream_progress_to=stream, **options)
    return stream.getvalue()


def _closing(podman: Podman, unchecked: str = "") -> str:
    return f"Built by Podman {podman.version}, whose builder adds no attestations{unchecked}\n"


def _assert_published(name: str, platform: str) -> None:
    """Check that a registry has one manifest for a platform, with the layers that its config names."""
    published = Published(name)
    assert published.manifest()["mediaType"] == MANIFESTS[1]
    assert published.config()["architecture"] == platform.removeprefix("linux/")
    assert all(published.layers_match())


@pytest.mark.usefixtures("switched_on")
@pytest.mark.parametrize("way", [way for way in WAYS if "build_backend" not in way])
def test_every_way_publishes_one_manifest_for_another_platform(
    way: str, podman: Podman, name: str, context: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "prefect_docker_attest"):
        WAYS[way](name, context, platform=OTHER)
    DockerImage(name).push()
    assert f"Building with the own builder of Podman {podman.version}: PREFECT_DOCKER_DISABLE_" in caplog.text
    _assert_published(name, OTHER)


@pytest.mark.usefixtures("switched_on", "emulation")
def test_images_for_both_platforms_have_the_programs_of_their_platform(
    podman: Podman, name: str, context: Path, private_docker: PrivateDocker
) -> None:
    engine = private_docker.engines["containerd"]
    (context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY new /app/new\nRUN echo built on $(uname -m)\n")
    for platform, machine in ((OTHER, "aarch64"), ("linux/amd64", "x86_64")):
        shown = _output(context, tag=name, platform=platform)
        assert f"built on {machine}\n" in shown
        assert shown.endswith(f"Successfully tagged {name}\n{_closing(podman)}")
        DockerImage(name).push()
        _assert_published(name, platform)
        engine.ctr("images", "pull", "--plain-http", f"--platform={platform}", name)
        engine.ctr("images", "rm", name)


def test_the_image_and_the_events_are_those_without_the_setting(
    podman: Podman, name: str, context: Path, setting: Setting
) -> None:
    def events(client: Any, **options: Any) -> list[Any]:
        return [*client.api.build(path=str(context), tag=name, **options)]

    (context / "Dockerfile").write_text("FROM scratch\nCOPY new /\n")
    with setting(False), docker_client() as client:
        events(client, decode=True)  # the next builds use the cache
        off = events(client, decode=True)
    with setting(True), docker_client() as client:
        assert events(client, decode=True) == [*off, {"stream": _closing(podman)}]
        assert [json.loads(line) for line in b"".join(events(client)).splitlines()][:-1] == off
        quiet = events(client, decode=True, quiet=True)
        image, _ = client.images.build(path=str(context))
    assert [len(event["stream"]) for event in quiet] == [65]
    assert image.id


@pytest.mark.usefixtures("switched_on")
def test_a_failed_build_has_podmans_own_error(podman: Podman, context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY missing /\n")
    with pytest.raises(BuildError) as failure:
        build_image(context)
    assert podman.version
    assert '"/missing": no such file or directory' in str(failure.value)
    assert "TIP" not in str(failure.value)


@pytest.mark.usefixtures("podman")
def test_an_image_of_the_cache_for_another_platform_is_an_error(context: Path, name: str) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY new /\n")
    with settings(disable_attestations=True, platform=OTHER):
        build_image(context, tag=name, platform="linux/s390x")
        with pytest.raises(BuildError) as failure:
            build_image(context, tag=name)
        assert "Successfully built" in _output(context, tag=name, nocache=True)
    assert str(failure.value).splitlines()[0] == (
        f"Podman made an image for linux/s390x, not for {OTHER}. "
        f"The platform {OTHER} comes from PREFECT_DOCKER_PLATFORM."
    )
    assert "\nTIP Its build cache does not compare platforms: use nocache=True." in str(failure.value)


@pytest.mark.usefixtures("switched_on")
def test_the_last_line_shows_what_was_not_checked(
    podman: Podman, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY new /\n")
    shown = _output(context, platform="linux/arm/v6")
    assert shown.endswith(_closing(podman, " (the variant of linux/arm/v6 was not checked)"))
    with socket_proxy(tmp_path / "proxy.sock", podman.address, lambda _method, path: "/libpod/" in path):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/proxy.sock")
        shown = _output(context)
    assert shown.endswith(_closing(podman, " (not checked: Podman does not describe the image)"))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "secrets": ({"secrets": ["id=token,env=TOKEN"]}, "secrets"),
    "cache_from": ({"cache_from": ["type=registry,ref=cache"]}, "cache_from"),
    "builder": ({"builder": "default"}, "builder='default'"),
    "platforms": ({"platforms": ["linux/amd64", OTHER]}, f"platforms='linux/amd64,{OTHER}'"),
    "platform": ({"platform": f"linux/amd64,{OTHER}"}, f"platform='linux/amd64,{OTHER}'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_buildx_only_option_is_refused_by_name(case: str, podman: Podman, context: Path, setting: Setting) -> None:
    options, named = REFUSED[case]
    for on in (True, False):
        with setting(on), pytest.raises(BuildError) as failure:
            build_image(context, **options)
        reason = f"is not supported by Podman {podman.version}, which builds with Buildah instead of BuildKit."
        first, tip = str(failure.value).splitlines()
        assert first == f"{named} {reason}"
        assert tip.startswith(("TIP Omit it, or select a builder outside Podman: ", "TIP Build for one platform, or "))


@pytest.mark.usefixtures("podman")
@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"media_types": "oci"}, "PREFECT_DOCKER_MEDIA_TYPES='oci'"),
        ({"compression": "zstd"}, "PREFECT_DOCKER_COMPRESSION='zstd'"),
        ({"cache_from": "type=registry,ref=cache"}, "PREFECT_DOCKER_CACHE_FROM"),
        ({"push_from_builder": True}, "PREFECT_DOCKER_PUSH_FROM_BUILDER"),
    ],
)
def test_a_setting_that_needs_buildkit_is_refused_by_name(context: Path, values: dict[str, Any], named: str) -> None:
    with (
        settings(**values),
        pytest.raises(BuildError, match=f"{named} is not supported by Podman .*\nTIP Unset it, or"),
    ):
        build_image(context)


def test_a_platform_that_does_not_exist_is_refused(podman: Podman, context: Path, setting: Setting) -> None:
    assert podman
    with (
        setting(True),
        pytest.raises(BuildError, match=r"platform='linux/amd46' is not a platform\.\nTIP Write 'linux/"),
    ):
        build_image(context, platform="linux/amd46")


FULFILLED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no attestations": ({"disable_attestations": False}, {"provenance": False, "sbom": False, "platform": OTHER}),
    "the setting": ({"disable_attestations": True}, {"provenance": "mode=max", "attest": [], "platform": "arm64"}),
    "one platform": ({}, {"platforms": ["linux/aarch64"]}),
    "platform of a setting": ({"platform": "arm64"}, {}),
    "form of a setting": ({"media_types": "Docker", "compression": "gzip"}, {"platform": OTHER, "provenance": False}),
    "limits": ({"disable_attestations": True}, {"container_limits": {"memory": 2**28}, "platform": OTHER}),
}


@pytest.mark.parametrize("case", FULFILLED)
def test_what_podman_does_anyway_is_built(case: str, podman: Podman, context: Path, name: str) -> None:
    values, options = FULFILLED[case]
    (context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nLABEL case='{case}'\n")
    with settings(**values):
        assert _output(context, tag=name, **options).endswith(_closing(podman))
    DockerImage(name).push()
    assert Published(name).config()["architecture"] == "arm64"
    assert Published(name).manifest()["mediaType"] == MANIFESTS[1]


@pytest.mark.usefixtures("context", "switched_on", "podman")
def test_the_steps_build_tag_and_push(name: str) -> None:
    repository, _, tag = name.rpartition(":")
    options: dict[str, Any] = {"tag": tag, "additional_tags": ["v2"], "ignore_cache": True}
    built = build_docker_image(repository, dockerfile="Dockerfile", platform="arm64", **options)
    push_docker_image(repository, **options)
    assert built["image_id"].startswith("sha256:")
    for pushed in (name, f"{repository}:v2"):
        _assert_published(pushed, OTHER)


@pytest.mark.skipif(
    not hasattr(dockerutils, "_BUILD_MAX_RETRIES"), reason="this version of Prefect does not build a second time"
)
@pytest.mark.parametrize("on", [True, False])
@pytest.mark.usefixtures("podman")
def test_prefect_retries_by_podmans_error(
    context: Path, setting: Setting, monkeypatch: pytest.MonkeyPatch, *, on: bool
) -> None:
    # The name of a missing file is part of Podman's error, and Prefect retries by these words.
    dockerfile, once, attempts = "connection reset", dockerutils._build_image_once, []

    def attempt(*args: Any, **options: Any) -> str:
        attempts.append(1)
        if len(attempts) == 3:
            (context / "Dockerfile").rename(context / dockerfile)
        return once(*args, **options)

    monkeypatch.setattr(dockerutils, "_BUILD_RETRY_DELAY_BASE", 0)
    monkeypatch.setattr(dockerutils, "_build_image_once", attempt)
    with setting(on):
        assert build_image(context, dockerfile=dockerfile).startswith("sha256:")
    assert len(attempts) == 3


def test_an_interrupted_build_leaves_what_it_leaves_without_the_setting(
    podman: Podman, slow: SlowBuild, setting: Setting
) -> None:
    def state() -> dict[str, int]:
        sleeping = 0
        for process in slow.steps():
            with suppress(psutil.Error):
                sleeping += process.cmdline()[-1:] == [slow.seconds]
        return {**podman.leftovers(), "sleeping": sleeping}

    def left(*, on: bool) -> dict[str, int]:
        before = state()
        with setting(on):
            caller = multiprocessing.get_context("fork").Process(target=build_image, args=[slow.context])
            caller.start()
        wait_until(lambda: state()["sleeping"] > before["sleeping"])
        caller.kill()
        caller.join()
        wait_until(lambda: podman.leftovers()["contexts"] == 0)
        return {name: count - before[name] for name, count in state().items()}

    assert left(on=True) == left(on=False)


@pytest.mark.usefixtures("switched_on")
@pytest.mark.parametrize("choice", ["variable", "use", "option"])
def test_a_builder_outside_podman_builds(
    choice: str, outside: RemoteBuilder, context: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {}
    if choice == "variable":
        monkeypatch.setenv("BUILDX_BUILDER", outside.name)
    elif choice == "use":
        subprocess.run(["docker", "buildx", "use", outside.name], check=True)
    else:
        options["builder"] = outside.name
    (context / "Dockerfile").write_text(
        f"FROM {BUSYBOX}\nCOPY new /\nRUN --mount=type=secret,id=s cp /run/secrets/s /\n"
    )
    shown = _output(context, tag=name, platform=OTHER, secrets=["id=s,src=new"], **options)
    assert f'building with "{outside.name}" instance using remote driver' in shown
    assert "Built by Podman" not in shown
    DockerImage(name).push()
    _assert_published(name, OTHER)


@needs_build_backend
@pytest.mark.usefixtures("switched_on")
def test_build_backend_is_refused_unless_a_builder_is_outside_podman(
    podman: Podman, outside: RemoteBuilder, context: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = rf"build_backend='buildx' is not supported by Podman {podman.version}, which .*\nTIP Omit it \("
    for way in [way for way in WAYS if "build_backend" in way]:
        with pytest.raises(BuildError, match=reason):
            WAYS[way](name, context)
    monkeypatch.setenv("BUILDX_BUILDER", outside.name)
    WAYS["build_backend"](name, context, platforms=[OTHER])
    with podman.client() as client:
        assert client.images.get(name).attrs["Architecture"] == "arm64"


@pytest.mark.usefixtures("switched_on")
def test_the_version_is_asked_once_for_each_client(
    podman: Podman, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket_proxy(tmp_path / "proxy.sock", podman.address, lambda _method, _path: False) as requests:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/proxy.sock")
        build_image(context)
        with docker_client() as client:
            for _ in range(2):
                assert [*client.api.build(path=str(context))]
    of_docker_py = [request for request in requests if "/version" in request]
    assert of_docker_py == ["GET /version"] * 2


@pytest.mark.usefixtures("switched_on")
def test_a_docker_engine_in_the_place_of_podman_is_noticed(
    podman: Podman, some_engine: Engine, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = tmp_path / "engine.sock"
    socket.symlink_to(podman.address.removeprefix("unix://"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    with docker_client() as client:
        client.api.get_adapter("http+docker://").close()  # the connection to Podman
        socket.unlink()
        socket.symlink_to(some_engine.host.removeprefix("unix://"))
        *_, last = client.api.build(path=str(context), decode=True)
        assert last["error"].startswith("Another engine has taken the place of Podman")
        *_, last = client.api.build(path=str(context), decode=True)
    assert last["stream"].startswith("Built by docker buildx without attestations")


@pytest.mark.usefixtures("switched_on")
def test_a_docker_engine_is_asked_nothing_more(
    some_engine: Engine, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket_proxy(tmp_path / "proxy.sock", some_engine.host, lambda _method, _path: False) as requests:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/proxy.sock")
        with docker_client() as client:
            before = [*requests]
            events = client.api.build(path=str(context), decode=True)
            assert requests == before  # buildx has not started yet
            assert not any("error" in event for event in events)
    # The docker CLI and buildx ask with an API version.
    assert requests.count("GET /version") == 1


def _checks() -> dict[str, Any]:
    """The results of the doctor's checks."""
    command = [sys.executable, "-m", "prefect_docker_attest", "doctor", "--json"]
    environment = {**os.environ, "PREFECT_DOCKER_DISABLE_ATTESTATIONS": "true"}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return {check["name"]: check for check in json.loads(ran.stdout)["checks"]}


def test_doctor_finds_podman_ok(podman: Podman, outside: RemoteBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _checks()
    docker = ("docker CLI", "buildx", "engine", "same engine", "image store", "builder", "cross-platform")
    assert {name: found[name]["status"] for name in docker} == dict.fromkeys(docker, "ok")
    assert f"Podman {podman.version}, linux/" in found["engine"]["found"]
    assert "need BuildKit" in found["engine"]["advice"]
    assert found["builder"]["found"] == "Podman's own, Buildah"
    assert "emulation" not in found

    monkeypatch.setenv("BUILDX_BUILDER", outside.name)
    found = _checks()
    assert {found[name]["status"] for name in docker if name in found} == {"ok"}
    assert found["builder"]["found"].startswith(f"{outside.name}, driver remote, ")
    assert not found["engine"]["advice"]


def test_doctor_finds_podmans_command_ok(podman: Podman, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{podman.programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PREFECT_DOCKER_CACHE_TO", "type=inline")
    found = _checks()
    for name in ("docker CLI", "buildx"):
        assert found[name]["status"] == "ok"
        assert found[name]["found"].startswith("Podman's own builder does not need it: ")
    assert f"podman version {podman.version}" in found["docker CLI"]["found"]
    settings_check = found["build settings"]
    assert settings_check["status"] == "problem"
    assert f"Podman {podman.version} does not support PREFECT_DOCKER_CACHE_TO" in settings_check["found"]


@pytest.mark.usefixtures("podman", "switched_on")
def test_inspect_reads_images_of_podman(context: Path, name: str) -> None:
    image_id = build_image(context, tag=name, platform=OTHER)
    command = [sys.executable, "-m", "prefect_docker_attest", "inspect", "--engine", "--verify-layers", "--json"]
    ran = subprocess.run([*command, name, image_id], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for inspected in json.loads(ran.stdout)["images"]:
        (image,) = inspected["images"]
        assert (image["platform"].removesuffix("/v8"), image["state"]) == (OTHER, "sound")
