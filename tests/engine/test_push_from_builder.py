"""`PREFECT_DOCKER_PUSH_FROM_BUILDER`: the builder pushes the image, and docker-py's push puts the tag on it."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import docker
import pytest
from docker.errors import ImageNotFound
from prefect.docker import DockerImage
from prefect.utilities.dockerutils import BuildError, PushError, build_image, docker_client

from engines.links import Link, proxy
from engines.machine import daemons
from engines.published import Published
from prefect_docker_attest.buildx import from_builder
from prefect_docker_attest.images import retrying
from support.guarded import BASIC, PASSWORD, USER, guarded_registry
from support.names import BUSYBOX, PREFIX
from support.pushing import started_registry
from support.ways import WAYS, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engines.private import Engine, Registry
    from support.remote_builder import RemoteBuilder

MEGABYTE = 1_000_000


@pytest.fixture
def name(registry: Registry) -> str:
    return f"{registry.address}/from-builder/{uuid4()}:v1"


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    monkeypatch.chdir(folder)  # Prefect 3.1's DockerImage builds the current folder, whatever its context is
    (folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY new /new\n")
    change(folder)
    return folder


@pytest.fixture
def replace_docker(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that puts a shell script in the place of docker. It finds the real one in `$docker`."""

    def replace(script: str) -> None:
        real = shutil.which("docker", path=engine.environment["PATH"])
        file = tmp_path / "bin" / "docker"
        file.parent.mkdir()
        file.write_text(f"#!/bin/sh\ndocker={real}\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setenv("PATH", f"{file.parent}:{engine.environment['PATH']}")

    return replace


@pytest.fixture(autouse=True)
def _on(engine: Engine) -> Iterator[None]:
    assert engine
    with settings(push_from_builder=True, disable_attestations=True):
        yield


@pytest.fixture(autouse=True)
def _debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="prefect_docker_attest")


def change(folder: Path) -> None:
    """Make the next build another image."""
    (folder / "new").write_text(str(uuid4()))


def image_of(name: str, folder: Path, **options: Any) -> DockerImage:
    return DockerImage(name, dockerfile="Dockerfile", context=folder, **options)


def build(name: str | None, folder: Path, **options: Any) -> str:
    """Build as Prefect does; what it prints."""
    with docker_client() as client:
        events = client.api.build(path=str(folder), tag=name, decode=True, **options)
        return "".join(event.get("stream", event.get("error", "")) for event in events)


def digest_in(printed: str) -> str:
    """The digest of the image that a build says it has pushed."""
    return "sha256:" + printed.rpartition("Its builder pushed ")[2].partition("@sha256:")[2][:64]


def in_engine(engine: Engine, name: str) -> bool:
    return engine.run("docker", "image", "inspect", name, check=False).returncode == 0


def tag_in_engine(engine: Engine, name: str, folder: Path) -> None:
    """Build an image in the engine by hand."""
    options = ("--load", "--provenance=false", "--label=by=hand", f"--tag={name}")
    engine.run("docker", "buildx", "build", *options, str(folder))


@pytest.mark.usefixtures("far_in_use")
def test_the_tag_moves_with_the_push_and_not_before(name: str, context: Path, engine: Engine) -> None:
    printed = build(name, context)
    assert "\nBuilt and pushed by docker buildx without attestations (PREFECT_DOCKER_DISABLE_A" in printed
    assert not Published(name).exists
    assert not in_engine(engine, name)
    image_of(name, context).push()
    assert Published(name).digest() == digest_in(printed)
    assert Published(name).is_one_manifest
    assert all(Published(name).layers_match())
    engine.run("docker", "pull", name)


@pytest.mark.usefixtures("far_in_use")
def test_an_older_image_of_that_name_is_never_pushed(
    name: str, context: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with settings(push_from_builder=False):
        old = image_of(name, context)
        old.build()
        old.push()
    before = Published(name).digest()
    change(context)
    image = image_of(name, context)
    image.build()
    assert Published(name).digest() == before
    image.push()
    assert in_engine(engine, name)
    assert Published(name).digest() != before
    assert Published(name).is_one_manifest
    change(context)
    image.build()
    image.push()
    assert "so the engine pushes" not in caplog.text
    # The setting is off again, and the engine's image is the same as at the beginning.
    with settings(push_from_builder=False):
        old.build()
        old.push()
    assert Published(name).digest() != before


@pytest.mark.usefixtures("far_in_use")
def test_what_the_engine_has_got_since_the_build_is_pushed(
    name: str, context: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    build(name, context)
    change(context)
    tag_in_engine(engine, name, context)
    image_of(name, context).push()
    assert "so the engine pushes" in caplog.text
    assert Published(name).config()["config"]["Labels"]["by"] == "hand"


@pytest.mark.usefixtures("far_in_use")
def test_without_the_setting_the_same_image_of_the_engine_is_pushed_again(name: str, context: Path) -> None:
    with settings(push_from_builder=False):
        build(name, context)
        image_of(name, context).push()
    first, new = Published(name).digest(), (context / "new").read_text()
    change(context)
    image = image_of(name, context)
    image.build()
    image.push()
    assert Published(name).digest() != first
    (context / "new").write_text(new)
    with settings(push_from_builder=False):
        build(name, context)
        image.push()
    assert Published(name).digest() == first


@pytest.mark.usefixtures("far_in_use")
def test_a_push_answers_as_docker_pys(name: str, context: Path, engine: Engine) -> None:
    tag_in_engine(engine, f"{name}-theirs", context)
    repository, _, tag = name.rpartition(":")
    build(name, context)
    with docker_client() as client:
        api = client.api
        ways: list[dict[str, Any]] = [{"stream": True, "decode": True}, {"stream": True}, {}, {"decode": True}]
        for options in ways:
            ours, theirs = api.push(name, **options), api.push(f"{name}-theirs", **options)
            assert isinstance(ours, str) == isinstance(theirs, str)
            if isinstance(ours, str):
                ours, theirs = ours.splitlines(), theirs.splitlines()
            ours, theirs = list(ours), list(theirs)
            assert {*map(type, ours)} == {*map(type, theirs)}
            if not isinstance(ours[0], dict):
                ours, theirs = map(json.loads, ours), map(json.loads, theirs)
            (result,) = (event for event in ours if "aux" in event)
            assert result["aux"]["Tag"] == tag
            assert result["aux"]["Digest"] == Published(name).digest()
            # An engine with the containerd image store has none (Docker 26.1).
            for their_result in (event for event in theirs if "aux" in event):
                assert result.keys() == their_result.keys()
                assert result["aux"].keys() == their_result["aux"].keys()
        by_position = list(api.push(repository, tag, True, None, True))
        assert by_position == list(api.push(repository, tag=tag, stream=True, decode=True))
        of_all_tags = list(api.push(repository, stream=True, decode=True))
        assert of_all_tags[-len(by_position) :] == by_position
        assert any(f"{tag}-theirs: digest: " in event.get("status", "") for event in of_all_tags)
        with pytest.raises(TypeError):
            api.push(name, nonsense=True)  # type: ignore[call-arg]
    client = docker.from_env()
    assert '"aux"' in client.images.push(name)
    client.close()


@pytest.mark.usefixtures("far_in_use")
def test_several_platforms_and_media_types_need_no_containerd_store(name: str, context: Path) -> None:
    with settings(media_types="oci"):
        image = image_of(name, context, platforms=["linux/amd64", "linux/arm64"], annotations={"index:a": "b"})
        image.build()
        image.push()
    assert Published(name).platforms() == ["linux/amd64", "linux/arm64"]
    assert Published(name).manifest()["mediaType"] == "application/vnd.oci.image.index.v1+json"


def test_a_fleet_pushes_one_platform(name: str, context: Path, engine: Engine, fleet_in_use: dict[str, Link]) -> None:
    image = image_of(name, context, platform="linux/arm64")
    image.build()
    assert not in_engine(engine, name)
    image.push()
    assert Published(name).config()["architecture"] == "arm64"
    assert fleet_in_use["linux/arm64"].carried > 4 * fleet_in_use["linux/amd64"].carried


@pytest.mark.usefixtures("fleet_in_use")
def test_a_fleet_that_builds_several_platforms_moves_no_tag(
    name: str, context: Path, caplog: pytest.LogCaptureFixture
) -> None:
    repository, _, _ = name.rpartition(":")
    printed = build(name, context, platforms=["linux/amd64", "linux/arm64"])
    assert "because the nodes of the builder cannot push several platforms without a tag" in caplog.text
    assert 'Prefect\'s build_backend="buildx"' in printed
    assert not Published(name).exists
    assert not Published(f"{repository}:latest").exists


@pytest.mark.usefixtures("far_in_use")
def test_attestations_are_kept_where_they_are_wanted(name: str, context: Path) -> None:
    with settings(disable_attestations=False):
        image = image_of(name, context, provenance=True)
        image.build()
        image.push()
    assert Published(name).platforms() == ["linux/amd64", "unknown/unknown"]


@pytest.mark.usefixtures("far_in_use")
def test_a_deployment_without_push_moves_no_tag(name: str, context: Path) -> None:
    image_of(name, context).build()
    assert not Published(name).exists


@pytest.mark.usefixtures("far_in_use")
def test_an_image_that_the_engine_does_not_have_is_an_error_that_names_the_setting(
    name: str, context: Path, engine: Engine
) -> None:
    digest = digest_in(build(name, context))
    client = docker.from_env()
    for wanted in (name, digest, digest.removeprefix("sha256:")[:12]):
        with pytest.raises(ImageNotFound, match="PREFECT_DOCKER_PUSH_FROM_BUILDER=false"):
            client.images.get(wanted)
        with (
            docker_client() as prefects,
            pytest.raises(
                BuildError, match=rf"not in the Docker Engine, because its builder pushed it as .*@{digest}\.\nTIP "
            ),
        ):
            prefects.images.get(wanted)
    with pytest.raises(ImageNotFound, match="No such image"):
        client.images.get(f"{name}-other")
    image_of(name, context).push()
    engine.run("docker", "pull", name)
    assert client.images.get(name).id in (digest, Published(name).manifest()["config"]["digest"])
    client.close()


@pytest.mark.usefixtures("far_in_use")
def test_an_older_image_of_the_engine_is_not_returned_instead(name: str, context: Path) -> None:
    with settings(push_from_builder=False):
        build(name, context)
    change(context)
    build(name, context)
    client = docker.from_env()
    with pytest.raises(ImageNotFound, match="PREFECT_DOCKER_PUSH_FROM_BUILDER"):
        client.images.get(name)
    client.close()


def test_the_engines_own_builder_loads(
    name: str, context: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    image = image_of(name, context)
    image.build()
    assert in_engine(engine, name)
    image.push()
    assert Published(name).is_one_manifest
    assert "the image is loaded into the engine, because the builder is the engine's own" in caplog.text


@pytest.mark.usefixtures("far_in_use")
def test_a_name_without_a_registry_is_loaded(context: Path, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    name = f"{PREFIX}/from-builder:{uuid4()}"
    build(name, context)
    assert in_engine(engine, name)
    assert f"because the name {name} has no registry" in caplog.text


@pytest.mark.usefixtures("far_in_use")
@pytest.mark.parametrize("way", ["ImageBuilder", "step"])
def test_an_image_that_is_built_without_a_tag_is_loaded(
    way: str, name: str, context: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    WAYS[way](name, context)
    assert in_engine(engine, name)
    assert "because it is built without a tag" in caplog.text


@pytest.mark.usefixtures("far_in_use")
def test_an_image_that_docker_py_returns_is_loaded(
    name: str, context: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with docker_client() as client:
        built, _ = client.images.build(path=str(context), tag=name)
        assert built.tags == [name]
    assert in_engine(engine, name)
    assert "because client.images.build returns an image of the engine" in caplog.text


@pytest.mark.usefixtures("far_in_use")
def test_with_the_setting_off_no_name_is_remembered(name: str, context: Path, engine: Engine) -> None:
    with settings(push_from_builder=False):
        build(name, context)
        assert in_engine(engine, name)
        with docker_client() as client:
            assert from_builder.named(client.api, name, None) == []
            assert client.images.get(name).tags == [name]


@pytest.mark.usefixtures("far_in_use")
def test_a_push_that_fails_says_what_is_in_the_registry(
    registry_program: str, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "_PAUSES", (0, 0, 0))
    with started_registry(registry_program, tmp_path) as address:
        name = f"{address}/app:v1"
        image = image_of(name, context)
        digest = digest_in(build(name, context))
    with pytest.raises(PushError) as failed:
        image.push()
    assert f"registry {address} cannot be read" in str(failed.value)
    assert f"The builder pushed the image as {address}/app@{digest}, but the tag v1 was not moved." in str(failed.value)
    with docker_client() as client:
        (*_, last) = client.api.push(name, stream=True, decode=True)
    assert last.keys() == {"error", "errorDetail"}


@pytest.fixture
def guarded(registry_program: str, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "guarded").mkdir()
    with guarded_registry(registry_program, tmp_path / "guarded") as address:
        yield address


@pytest.mark.usefixtures("far_in_use")
def test_credentials_are_those_of_docker_and_of_the_call(guarded: str, context: Path, own_configuration: Path) -> None:
    name = f"{guarded}/app:v1"
    assert "401 Unauthorized" in build(name, context)
    config = own_configuration / "config.json"
    config.write_text(json.dumps({"auths": {guarded: {"auth": BASIC}}}))
    assert digest_in(build(name, context))
    wrong, right = {"username": USER, "password": "wrong"}, {"username": USER, "password": PASSWORD}
    with docker_client() as client:
        (*_, refused) = client.api.push(name, stream=True, decode=True, auth_config=wrong)
        assert "401 Unauthorized" in refused["error"]
        assert f"`docker login {guarded}`" in refused["error"]
        assert "wrong" not in refused["error"]
        (*_, pushed) = client.api.push(name, stream=True, decode=True)
        assert pushed["aux"]["Tag"] == "v1"
    config.write_text("{}")
    with docker_client() as client:
        (*_, refused) = client.api.push(name, stream=True, decode=True)
        assert "401 Unauthorized" in refused["error"]
        (*_, pushed) = client.api.push(name, stream=True, decode=True, auth_config=right)
        assert pushed["aux"]["Tag"] == "v1"
        client.login(USER, PASSWORD, registry=guarded)
        (*_, pushed) = client.api.push(name, stream=True, decode=True)
        assert pushed["aux"]["Tag"] == "v1"
    assert Published(name, BASIC).is_one_manifest


@pytest.mark.parametrize("push_from_builder", [True, False])
def test_the_image_crosses_the_link_of_the_user_once(
    registry: Registry,
    context: Path,
    engine: Engine,
    far_in_use: RemoteBuilder,
    builder_machine: Engine,
    *,
    push_from_builder: bool,
) -> None:
    (context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN head -c 100000000 /dev/urandom > /data && : {uuid4()}\n")
    users, others = Link(), Link()
    builders = daemons(Path(builder_machine.host.removeprefix("unix://")).parent)
    port = int(registry.address.rpartition(":")[2])
    with (
        proxy(port, users, builders, others) as near,
        settings(push_from_builder=push_from_builder),
    ):
        name = f"127.0.0.1:{near}/from-builder/{uuid4()}:v1"
        image = image_of(name, context)
        image.build()
        image.push()
        size = sum(layer["size"] for layer in Published(name).manifest()["layers"])
        engine.run("docker", "image", "rm", "--force", name)
    assert size > 100 * MEGABYTE
    carried = far_in_use.link.carried + users.carried
    if push_from_builder:
        assert carried < 5 * MEGABYTE
        assert others.carried > 100 * MEGABYTE
    else:
        assert carried > 200 * MEGABYTE


@pytest.mark.usefixtures("far_in_use")
def test_another_process_pushes_what_the_engine_has(name: str, context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(name, context)
    monkeypatch.setattr(from_builder, "_pushed", {})  # as in another process
    with pytest.raises(Exception, match=r"(?i)does not exist|no such image|Docker is not running"):
        image_of(name, context).push()
    assert not Published(name).exists


def test_a_build_without_docker_buildx_inspect_loads(
    name: str, context: Path, engine: Engine, replace_docker: Callable[[str], None]
) -> None:
    replace_docker('case "$*" in *"buildx inspect"*) exit 1;; esac; exec "$docker" "$@"')
    assert build_image(context, tag=name)
    assert in_engine(engine, name)


def test_without_docker_the_build_says_so(name: str, context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildError, match="The `docker` command was not found"):
        build_image(context, tag=name)


@pytest.mark.usefixtures("far_in_use")
def test_an_older_image_does_not_get_another_tag(name: str, context: Path) -> None:
    repository, _, _ = name.rpartition(":")
    with settings(push_from_builder=False):
        build(name, context)
    change(context)
    build(name, context)
    with docker_client() as client, pytest.raises(BuildError, match="PREFECT_DOCKER_PUSH_FROM_BUILDER=false"):
        client.api.tag(name, repository, "latest")


@pytest.mark.usefixtures("far_in_use")
@pytest.mark.parametrize("way", ["tag", "build"])
def test_an_image_that_the_user_gives_the_name_again_is_pushed(
    way: str, name: str, context: Path, engine: Engine
) -> None:
    client = docker.from_env()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY new /new\n")
    client.images.build(path=str(context), tag=name, rm=True)
    old = client.images.get(name)
    old.tag(f"{name}-old")
    client.images.push(f"{name}-old")
    new = (context / "new").read_text()
    change(context)
    build(name, context)
    if way == "tag":
        old.tag(*name.rsplit(":", 1))
    else:
        (context / "new").write_text(new)
        client.images.build(path=str(context), tag=name, rm=True)
    client.images.push(name)
    client.close()
    assert in_engine(engine, name)
    assert Published(name).digest() == Published(f"{name}-old").digest()


@pytest.mark.usefixtures("far_in_use")
def test_a_build_that_loads_and_fails_forgets_nothing(name: str, context: Path) -> None:
    with settings(push_from_builder=False):
        build(name, context)
    change(context)
    digest = digest_in(build(name, context))
    (context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY missing /\n")
    with settings(push_from_builder=False):
        assert "missing" in build(name, context)
    image_of(name, context).push()
    assert Published(name).digest() == digest


@pytest.mark.usefixtures("far_in_use")
def test_a_push_of_all_tags_pushes_those_of_the_engine_too(name: str, context: Path, engine: Engine) -> None:
    repository, _, _ = name.rpartition(":")
    digest = digest_in(build(name, context))
    tag_in_engine(engine, f"{repository}:v2", context)
    with docker_client() as client:
        events = client.api.push(repository, stream=True, decode=True)
        assert not [event for event in events if "error" in event]
        events.close()
    assert Published(name).digest() == digest
    assert Published(f"{repository}:v2").config()["config"]["Labels"]["by"] == "hand"


@pytest.mark.usefixtures("far_in_use")
def test_an_image_not_found_has_the_status_and_the_explanation_of_the_engine(name: str, context: Path) -> None:
    build(name, context)
    client = docker.from_env()
    with pytest.raises(ImageNotFound) as failed:
        client.images.get(name)
    client.close()
    assert failed.value.status_code == 404
    assert "PREFECT_DOCKER_PUSH_FROM_BUILDER=false" in str(failed.value.explanation)


@pytest.mark.usefixtures("far_in_use")
def test_a_login_after_the_client_was_opened_counts(guarded: str, context: Path, own_configuration: Path) -> None:
    name, config = f"{guarded}/app:v1", own_configuration / "config.json"
    logged_in = json.dumps({"auths": {guarded: {"auth": BASIC}}})
    config.write_text(logged_in)
    assert digest_in(build(name, context))
    config.write_text("{}")
    client = docker.from_env()
    config.write_text(logged_in)
    assert '"aux"' in client.images.push(name)
    client.close()


@pytest.mark.usefixtures("far_in_use")
def test_a_build_that_reports_no_digest_says_so(
    name: str, context: Path, replace_docker: Callable[[str], None]
) -> None:
    no_metadata = 'for flag; do case "$flag" in --metadata-file=*) echo "{}" > "${flag#*=}";; esac; done'
    replace_docker(f'"$docker" "$@" || exit; {no_metadata}')
    with pytest.raises(BuildError, match=r"did not report its digest[^\n]*\nTIP Set PREFECT_DOCKER_PUSH_FROM_BUILDER"):
        build_image(context, tag=name)
