"""The compression of layers, in every way to build, and after builds with another one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prefect.utilities.dockerutils import build_image

from engines.private import STORES
from engines.published import Published
from prefect_docker_attest.errors import OptionError
from support.names import BUSYBOX
from support.outcomes import pushed, warnings
from support.ways import WAYS, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engines.private import Engine, Registry
    from support.remote_builder import RemoteBuilder

OCI, DOCKER = "application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"
# The ways of the three functions that pass options on.
FEW = [way for way in WAYS if way in ("build_image", "step", "build_backend")]

in_containerd = pytest.mark.parametrize("engine", ["containerd"], indirect=True)
in_graphdriver = pytest.mark.parametrize("engine", ["graphdriver"], indirect=True)


@pytest.fixture
def name(registry: Registry) -> str:
    return f"{registry.address}/compression/{uuid4()}:v1"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY old /old\nCOPY new /new\n")
    change(folder, "old")
    change(folder, "new")
    return folder


def change(folder: Path, file: str) -> None:
    # No other test may have built the same layer, because the cache keeps its compression.
    (folder / file).write_text(str(uuid4()) * 1000)


@pytest.fixture(autouse=True)
def own_memory(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the docker CLI's configuration, which remembers compressions, for this test only."""
    folder = tmp_path / "docker-configuration"
    source = engine.environment.get("DOCKER_CONFIG") or str(Path.home() / ".docker")
    if Path(source).is_dir():
        shutil.copytree(source, folder, symlinks=True)
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _without_attestations() -> Iterator[None]:
    with settings(disable_attestations=True):
        yield


@pytest.fixture
def docker_commands(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the arguments of each docker command that runs, one command a line."""
    log, real = tmp_path / "commands", shutil.which("docker", path=engine.environment["PATH"])
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {real} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{engine.environment['PATH']}")
    return log


def layers(name: str) -> list[str]:
    """Return the media types of an image's layers, without those of its base image."""
    return [layer["mediaType"] for layer in Published(name).manifest()["layers"]][-2:]


@pytest.mark.parametrize("way", WAYS)
@in_containerd
def test_new_layers_have_the_compression_of_the_setting(way: str, name: str, context: Path, engine: Engine) -> None:
    assert engine
    with settings(compression="zstd"):
        WAYS[way](name, context)
    image = pushed(name)
    assert layers(name) == [f"{OCI}+zstd"] * 2
    assert all(image.layers_match())
    # Those of the base image stay as they are.
    assert {layer["mediaType"] for layer in image.manifest()["layers"][:-2]} == {f"{OCI}+gzip"}


@pytest.mark.parametrize(
    ("compression", "types"),
    [("zstd:22", f"{OCI}+zstd"), ("gzip:1", f"{DOCKER}.gzip"), ("uncompressed", OCI)],
)
@in_containerd
def test_levels_and_methods(compression: str, types: str, name: str, context: Path, engine: Engine) -> None:
    assert engine
    build_image(context, tag=name, compression=compression)
    assert all(pushed(name).layers_match())
    # BuildKit 0.31 made OCI media types the default.
    assert layers(name) in ([types] * 2, [types.replace(f"{DOCKER}.", f"{OCI}+")] * 2)


@pytest.mark.parametrize("way", FEW)
@in_containerd
def test_the_compression_of_an_image_wins(way: str, name: str, context: Path, engine: Engine) -> None:
    assert engine
    own: dict[str, Any] = {"compression": "gzip"}
    if way == "build_backend":
        own = {"output": {"type": "docker", "compression": "gzip"}}
    with settings(compression="zstd"):
        WAYS[way](name, context, **own)
    pushed(name)
    assert all(layer.endswith("gzip") for layer in layers(name))


@pytest.mark.skipif("build_backend" not in WAYS, reason="this Prefect has no build_backend")
@pytest.mark.parametrize("push", [False, True])
@in_containerd
def test_the_output_of_an_image(push: bool, name: str, context: Path, engine: Engine) -> None:
    assert engine
    output = {"type": "registry" if push else "docker", "compression": "zstd", "compression-level": "1"}
    WAYS["build_backend"](name, context, output=output, push=push)
    if not push:
        pushed(name)
    assert layers(name) == [f"{OCI}+zstd"] * 2


@in_containerd
@pytest.mark.usefixtures("both_platforms")
def test_several_platforms(name: str, context: Path, engine: Engine) -> None:
    assert engine
    build_image(context, tag=name, platforms=["linux/amd64", "linux/arm64"], compression="zstd")
    index = pushed(name)
    for entry in index.manifest()["manifests"]:
        assert index.manifest(entry["digest"])["layers"][-1]["mediaType"] == f"{OCI}+zstd"
        assert all(index.layers_match(entry["digest"]))


@pytest.mark.parametrize(
    ("off", "way"),
    [
        *(({}, way) for way in FEW),
        *((off, "build_image") for off in ({"compression": "gzip"}, {"media_types": "docker"}, {"media_types": "oci"})),
    ],
    ids=str,
)
@pytest.mark.usefixtures("engine")
@in_containerd
def test_an_image_without_zstd_after_one_with_it_can_be_pulled(
    way: str, off: dict[str, str], name: str, context: Path, builder_machine: Engine
) -> None:
    with settings(compression="zstd"):
        WAYS[way](name, context)
    base = pushed(name).manifest()["layers"][:-2]
    assert layers(name) == [f"{OCI}+zstd"] * 2
    with settings(**off):
        WAYS[way](name, context)
    image = pushed(name)
    assert all(layer.endswith("gzip") for layer in layers(name))
    assert all(image.layers_match())
    assert [layer["digest"] for layer in image.manifest()["layers"][:-2]] == [layer["digest"] for layer in base]
    # containerd 1.7 refuses zstd with Docker's media types (`number of layers and diffIDs don't match`).
    builder_machine.run("docker", "pull", name)
    assert builder_machine.output_of(name, "cat", "/new") == (context / "new").read_text()


@in_containerd
def test_cached_layers_keep_gzip_and_nothing_is_built_again(name: str, context: Path, engine: Engine) -> None:
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(
        dockerfile.read_text().replace("COPY new", "RUN cat /proc/sys/kernel/random/uuid > /unique\nCOPY new")
    )
    build_image(context, tag=name)
    unique = engine.output_of(name, "cat", "/unique")
    change(context, "new")
    with settings(compression="zstd"):
        build_image(context, tag=name)
    pushed(name)
    assert engine.output_of(name, "cat", "/unique") == unique
    cached, new = layers(name)
    assert (cached, new) == (f"{OCI}+gzip", f"{OCI}+zstd")


@pytest.mark.parametrize("way", [way for way in FEW if way != "step"])
@pytest.mark.usefixtures("engine")
@in_containerd
def test_the_command_line_changes_only_after_another_compression(
    way: str, name: str, context: Path, docker_commands: Path, own_memory: Path
) -> None:
    def outputs() -> list[str]:
        lines = [line.split() for line in docker_commands.read_text().splitlines() if "buildx build" in line]
        return [word for line in lines for word in line if word.startswith(("--load", "--output"))]

    WAYS[way](name, context)
    with settings(compression="gzip"):
        WAYS[way](name, context)
    assert not (own_memory / "prefect-docker-attest").exists()
    with settings(compression="uncompressed"):
        WAYS[way](name, context)
    WAYS[way](name, context)
    assert outputs() == [
        "--load",
        "--output=type=docker,compression=gzip,force-compression=true",
        "--output=type=docker,oci-mediatypes=true,compression=uncompressed",
        "--output=type=docker,compression=gzip,force-compression=true",
    ]


@in_containerd
def test_the_digest_is_the_same_if_no_layer_has_another_compression(
    name: str, context: Path, engine: Engine, own_memory: Path
) -> None:
    assert engine
    build_image(context, tag=name)
    before = pushed(name).manifest()["layers"]
    (own_memory / "prefect-docker-attest").mkdir()
    (own_memory / "prefect-docker-attest" / "compression").touch()
    build_image(context, tag=name)
    assert pushed(name).manifest()["layers"] == before


@in_containerd
def test_a_layer_that_a_cache_has_with_zstd(name: str, context: Path, engine: Engine) -> None:
    assert engine
    (context / "Dockerfile").write_text(
        f"FROM {BUSYBOX} AS first\nCOPY old /old\nCOPY new /new\nFROM {BUSYBOX}\nCOPY --from=first /new /new\n"
    )
    cache = f"type=registry,ref={name.rpartition(':')[0]}:cache,mode=max,compression=zstd"
    build_image(context, tag=name, cache_to=cache)
    build_image(context, tag=name, target="first")
    pushed(name)
    assert all(layer.endswith("gzip") for layer in layers(name))


@in_containerd
def test_a_warning_if_nothing_can_be_remembered(
    name: str, context: Path, engine: Engine, own_memory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert engine
    (own_memory / "prefect-docker-attest").touch()
    build_image(context, tag=name, compression="zstd")
    (warning,) = warnings(caplog)
    assert "prefect-docker-attest/compression cannot be written" in warning
    assert "PREFECT_DOCKER_COMPRESSION=gzip" in warning


@pytest.mark.parametrize("way", FEW)
@pytest.mark.parametrize("compression", ["zstd", "uncompressed", "gzip:1"])
@in_graphdriver
def test_the_graphdriver_store_refuses_what_it_cannot_keep(
    way: str, compression: str, name: str, context: Path, engine: Engine
) -> None:
    assert engine
    refused = (
        rf"COMPRESSION='{compression}' is not supported: .* compresses itself with gzip\.\nTIP Use the containerd image"
    )
    with settings(compression=compression), pytest.raises(OptionError, match=f"^PREFECT_DOCKER_{refused}"):
        WAYS[way](name, context)
    if way != "build_backend":
        with pytest.raises(OptionError, match=f"(?i)^{refused}"):
            WAYS[way](name, context, compression=compression)


@pytest.mark.parametrize("way", FEW)
@in_graphdriver
def test_the_graphdriver_store_accepts_gzip(
    way: str, name: str, context: Path, engine: Engine, docker_commands: Path
) -> None:
    assert engine
    with settings(compression="gzip"):
        WAYS[way](name, context)
    assert "--load" in docker_commands.read_text()
    pushed(name)
    assert layers(name) == [f"{DOCKER}.gzip"] * 2


@pytest.mark.parametrize("engine", STORES, indirect=True)
def test_a_builder_elsewhere_pushes_zstd_from_any_store(
    name: str, context: Path, engine: Engine, far_in_use: RemoteBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine
    assert far_in_use
    with settings(push_from_builder=True):
        with settings(compression="zstd"):
            build_image(context, tag=name)
            pushed(name)
            assert layers(name) == [f"{OCI}+zstd"] * 2
        build_image(context, tag=name)
        pushed(name)
        assert all(layer.endswith("gzip") for layer in layers(name))
    monkeypatch.delenv("BUILDX_BUILDER")


@pytest.mark.skipif("build_backend" not in WAYS, reason="this Prefect has no build_backend")
@pytest.mark.parametrize("engine", STORES, indirect=True)
def test_a_build_that_pushes_from_a_builder_elsewhere(
    name: str, context: Path, engine: Engine, far_in_use: RemoteBuilder
) -> None:
    assert engine
    assert far_in_use
    with settings(compression="zstd:9"):
        WAYS["build_backend"](name, context, push=True)
    assert layers(name) == [f"{OCI}+zstd"] * 2


@pytest.mark.parametrize("engine", STORES, indirect=True)
def test_a_builder_elsewhere_loads_zstd_into_the_containerd_store(
    name: str, context: Path, engine: Engine, far_in_use: RemoteBuilder
) -> None:
    assert far_in_use
    with settings(compression="zstd"):
        if engine.store == "graphdriver":
            with pytest.raises(OptionError, match=r"^PREFECT_DOCKER_COMPRESSION='zstd' is not supported"):
                build_image(context, tag=name)
            return
        build_image(context, tag=name)
    pushed(name)
    assert layers(name) == [f"{OCI}+zstd"] * 2
