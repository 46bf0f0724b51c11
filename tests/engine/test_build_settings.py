"""Settings that are defaults of options: platform, media types and caches, in every way to build."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prefect.utilities.dockerutils import BuildError, build_image

from engines.private import STORES
from engines.published import Published
from prefect_docker_attest.errors import OptionError
from support.names import BUSYBOX
from support.outcomes import pushed, warnings
from support.ways import WAYS, settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engines.private import Engine, Registry

every_way = pytest.mark.parametrize("way", WAYS)
every_way_and_store = pytest.mark.parametrize(
    ("way", "engine"),
    # The functions that know the image store are the same for all ways that use docker-py.
    [(way, store) for way in WAYS for store in STORES if store == "containerd" or way in ("step", "build_backend")],
    indirect=["engine"],
)


@pytest.fixture
def name(registry: Registry) -> str:
    return f"{registry.address}/settings/{uuid4()}:v1"


@pytest.fixture
def context(emulation: None, tmp_path: Path) -> Path:  # noqa: ARG001 a RUN for another platform
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(
        f"FROM {BUSYBOX}\nCOPY new /app/new\nRUN cat /proc/sys/kernel/random/uuid > /unique\n"
    )
    (folder / "new").write_text(str(uuid4()))
    return folder


@pytest.fixture
def not_yet_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from prefect_docker_attest.patches import attestation_warning

    monkeypatch.setattr(attestation_warning, "_warned", threading.Event())


@every_way_and_store
@pytest.mark.usefixtures("engine")
def test_the_platform_is_the_default_for_images(way: str, name: str, context: Path) -> None:
    with settings(platform="linux/arm64", disable_attestations=True):
        WAYS[way](name, context)
    published = pushed(name)
    assert published.config()["architecture"] == "arm64"
    assert all(published.layers_match())


@every_way
@pytest.mark.usefixtures("some_engine")
def test_the_platform_of_an_image_wins(way: str, name: str, context: Path) -> None:
    with settings(platform="linux/arm64", disable_attestations=True):
        WAYS[way](name, context, platform="linux/amd64")
    assert pushed(name).config()["architecture"] == "amd64"


@every_way
@pytest.mark.usefixtures("containerd_engine")
def test_attestations_are_disabled_only_if_their_setting_is_on(way: str, name: str, context: Path) -> None:
    # The classic builder would build an image that no engine can pull.
    with settings(platform="linux/arm64"):
        WAYS[way](name, context)
    assert pushed(name).platforms() == ["linux/arm64", "unknown/unknown"]


@every_way
@pytest.mark.usefixtures("some_engine")
def test_an_invalid_platform_is_refused_with_the_variable(way: str, name: str, context: Path) -> None:
    with (
        settings(platform="amd46"),
        pytest.raises(OptionError, match=r"^PREFECT_DOCKER_PLATFORM='amd46' is not a platform"),
    ):
        WAYS[way](name, context)


@pytest.mark.parametrize("way", ["build_image", *(way for way in WAYS if way == "build_backend")])
@pytest.mark.usefixtures("engine")
def test_a_platform_that_the_base_image_lacks_is_an_error_that_names_the_variable(
    way: str, name: str, context: Path
) -> None:
    with (
        settings(platform="linux/s390x"),
        pytest.raises(BuildError, match=r"(?s)no match for platform .* linux/s390x comes from PREFECT_DOCKER_PLATFORM"),
    ):
        WAYS[way](name, context)


@pytest.mark.usefixtures("engine")
def test_a_program_of_another_processor_is_an_error_that_names_the_variable(name: str, tmp_path: Path) -> None:
    # No emulator exists for this header.
    (tmp_path / "program").write_bytes(b"\x7fELF" + bytes(60))
    (tmp_path / "program").chmod(0o755)
    (tmp_path / "Dockerfile").write_text(f'FROM {BUSYBOX}\nCOPY program /\nRUN ["/program"]\n')
    with (
        settings(platform="linux/amd64"),
        pytest.raises(BuildError, match=r"(?s)exec format error.* linux/amd64 comes from PREFECT_DOCKER_PLATFORM"),
    ):
        WAYS["build_image"](name, tmp_path)


@pytest.mark.usefixtures("not_yet_warned", "containerd_engine")
def test_one_warning_says_that_images_get_attestations(
    context: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with settings(platform="linux/amd64"):
        WAYS["build_image"](name, context)
        WAYS["build_image"](name, context)
    (warning,) = warnings(caplog)
    assert warning.startswith("PREFECT_DOCKER_PLATFORM: ")
    assert "PREFECT_DOCKER_DISABLE_ATTESTATIONS=true" in warning


@pytest.mark.parametrize(
    ("values", "options"),
    [({"disable_attestations": True}, {}), ({"disable_attestations": False}, {}), ({}, {"provenance": False})],
    ids=["off", "wanted", "the image says"],
)
@pytest.mark.usefixtures("not_yet_warned", "containerd_engine")
def test_no_warning_if_the_attestation_setting_is_set(
    values: dict[str, Any], options: dict[str, Any], context: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with settings(platform="linux/amd64", **values):
        WAYS["build_image"](name, context, **options)
    assert not warnings(caplog)


@pytest.mark.usefixtures("not_yet_warned", "containerd_engine")
def test_no_warning_if_buildx_disables_attestations(
    context: Path, name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDX_NO_DEFAULT_ATTESTATIONS", "1")
    with settings(platform="linux/amd64"):
        WAYS["build_image"](name, context)
    assert not warnings(caplog)
    assert pushed(name).is_one_manifest


@pytest.mark.usefixtures("not_yet_warned", "graphdriver_engine")
def test_no_warning_for_an_image_store_without_attestations(
    context: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with settings(platform="linux/amd64"):
        WAYS["build_image"](name, context)
    assert not warnings(caplog)
    assert pushed(name).is_one_manifest


def made_by_the_step(engine: Engine, name: str) -> str:
    """Return the output of the Dockerfile's step. Each run of the step writes something different."""
    # `docker run` is not used: it can lose the output of a container that ends at once.
    container = engine.run("docker", "create", name).stdout.strip()
    try:
        return engine.run("docker", "cp", f"{container}:/unique", "-").stdout
    finally:
        engine.run("docker", "rm", container)


@every_way
def test_a_cache_is_shared_by_machines(
    way: str, name: str, context: Path, containerd_engine: Engine, forget: Callable[[Engine], None]
) -> None:
    # ImageBuilder builds its image without a name.
    reference = name if way == "ImageBuilder" else "{image}"
    cache = f"type=registry,ref={reference.rpartition(':')[0] or reference}:{{platform}}"
    with settings(cache_from=cache, cache_to=cache, disable_attestations=True):
        WAYS[way](name, context)
        first = made_by_the_step(containerd_engine, name)
        forget(containerd_engine)
        WAYS[way](name, context)
        assert made_by_the_step(containerd_engine, name) == first
        repository = name.rpartition(":")[0]
        assert Published(f"{repository}:linux-amd64").manifest()
        forget(containerd_engine)
        with settings(cache_from=None):
            WAYS[way](name, context)
    assert made_by_the_step(containerd_engine, name) != first


def test_the_platform_of_a_cache_is_complete(name: str, context: Path, containerd_engine: Engine) -> None:
    assert containerd_engine.host
    with settings(cache_to="type=registry,ref={image}:{platform}", disable_attestations=True):
        build_image(context, tag=name, platform="amd64")
    assert Published(f"{name.rpartition(':')[0]}:linux-amd64").manifest()


@every_way_and_store
def test_a_cache_in_the_image_is_shared_by_machines(
    way: str, name: str, context: Path, engine: Engine, forget: Callable[[Engine], None]
) -> None:
    with settings(cache_from=f"type=registry,ref={name}", cache_to="type=inline", disable_attestations=True):
        WAYS[way](name, context)
        first = made_by_the_step(engine, name)
        pushed(name)
        forget(engine)
        WAYS[way](name, context)
    assert made_by_the_step(engine, name) == first


@every_way
@pytest.mark.usefixtures("graphdriver_engine")
def test_a_cache_that_the_builder_cannot_write_is_an_error_that_names_the_variable(
    way: str, name: str, context: Path
) -> None:
    message = r"The cache comes from PREFECT_DOCKER_CACHE_TO\.\nTIP Use the containerd image store .* type=inline"
    with settings(cache_to=f"type=registry,ref={name}-cache"), pytest.raises(BuildError, match=message):
        WAYS[way](name, context)


@pytest.mark.parametrize("way", ["build_image", *(way for way in WAYS if way == "build_backend")])
@pytest.mark.usefixtures("containerd_engine")
def test_a_cache_that_the_registry_refuses_is_a_warning(
    way: str, name: str, context: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with settings(cache_to="type=registry,ref=127.0.0.1:9/cache:1", disable_attestations=True):
        WAYS[way](name, context)
        (warning,) = warnings(caplog)
        assert warning.startswith("The image was built, but its build cache was not written: error writing layer blob")
        assert pushed(name).is_one_manifest
        with pytest.raises(BuildError, match="error writing layer blob"):
            WAYS[way](name, context, cache_to="type=registry,ref=127.0.0.1:9/cache:1")


@every_way_and_store
def test_a_missing_cache_is_not_an_error(
    way: str, name: str, context: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with settings(cache_from=f"type=registry,ref={name}-cache", disable_attestations=True):
        WAYS[way](name, context)
    assert made_by_the_step(engine, name)
    assert not warnings(caplog)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "ImageBuilder"])
def test_caches_of_an_image_win(
    way: str, name: str, context: Path, containerd_engine: Engine, forget: Callable[[Engine], None]
) -> None:
    repository = name.rpartition(":")[0]
    own = f"type=registry,ref={repository}:own"
    with settings(cache_from="type=nonsense", cache_to="type=nonsense", disable_attestations=True):
        WAYS[way](name, context, cache_from=[own], cache_to=own)
        first = made_by_the_step(containerd_engine, name)
        forget(containerd_engine)
        WAYS[way](name, context, cache_from=[own], cache_to=[])
        assert made_by_the_step(containerd_engine, name) == first


@every_way
@pytest.mark.usefixtures("some_engine")
def test_a_credential_in_a_cache_is_refused_and_not_shown(way: str, name: str, context: Path) -> None:
    with (
        settings(cache_from="type=s3,bucket=b,secret_access_key=HIDDEN"),
        pytest.raises(
            OptionError, match=r"^PREFECT_DOCKER_CACHE_FROM must not contain the credential secret_access_key"
        ) as refused,
    ):
        WAYS[way](name, context)
    assert "HIDDEN" not in str(refused.value)


@pytest.mark.usefixtures("some_engine")
def test_one_warning_if_buildx_ignores_a_cache_of_github_actions(
    name: str, context: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ACTIONS_RUNTIME_TOKEN", raising=False)
    with settings(cache_from="type=gha,scope={image}", disable_attestations=True):
        WAYS["build_image"](name, context)
    (warning,) = warnings(caplog)
    assert warning.startswith("buildx ignores the cache type=gha")


TYPES = {
    "docker": (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ),
    "oci": ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"),
}


def media_types(name: str) -> tuple[str, str]:
    """Return the media types of a manifest and its layers."""
    manifest = Published(name).manifest()
    (layers,) = {layer["mediaType"] for layer in manifest["layers"]}
    return manifest["mediaType"], layers


@every_way
@pytest.mark.parametrize("wanted", TYPES)
def test_media_types_are_those_of_the_setting(way: str, wanted: str, name: str, context: Path, engine: Engine) -> None:
    with settings(media_types=wanted, disable_attestations=True):
        if engine.store == "graphdriver" and wanted == "oci":
            with pytest.raises(
                OptionError, match=r"^PREFECT_DOCKER_MEDIA_TYPES='oci' .*\nTIP Use the containerd image store"
            ):
                WAYS[way](name, context)
            return
        WAYS[way](name, context)
    pushed(name)
    assert media_types(name) == TYPES[wanted]


@pytest.mark.parametrize("way", [way for way in WAYS if way.endswith("build_backend")])
@pytest.mark.parametrize("wanted", TYPES)
def test_media_types_of_an_image_that_the_build_pushes(
    way: str, wanted: str, name: str, context: Path, engine: Engine
) -> None:
    with settings(media_types=wanted, disable_attestations=True):
        if engine.store == "graphdriver" and wanted == "oci":
            with pytest.raises(
                OptionError, match=r"^PREFECT_DOCKER_MEDIA_TYPES='oci' .*\nTIP Use the containerd image store"
            ):
                WAYS[way](name, context, push=True)
            return
        WAYS[way](name, context, push=True)
    assert media_types(name) == TYPES[wanted]


@pytest.mark.usefixtures("containerd_engine")
def test_media_types_of_an_image_win(name: str, context: Path) -> None:
    with settings(media_types="docker", disable_attestations=True):
        WAYS["build_image"](name, context, media_types="oci")
    pushed(name)
    assert media_types(name) == TYPES["oci"]


@pytest.mark.skipif("build_backend" not in WAYS, reason="this Prefect has no build_backend")
@pytest.mark.usefixtures("containerd_engine")
def test_media_types_in_the_output_of_an_image_win(name: str, context: Path) -> None:
    with settings(media_types="docker", disable_attestations=True):
        WAYS["build_backend"](name, context, output={"type": "docker", "oci-mediatypes": "true"})
    pushed(name)
    assert media_types(name) == TYPES["oci"]


@pytest.mark.usefixtures("graphdriver_engine")
def test_unsupported_media_types_of_an_image_are_refused_by_name(name: str, context: Path) -> None:
    with pytest.raises(OptionError, match=r"^media_types='oci' .*\nTIP Use the containerd image store"):
        WAYS["build_image"](name, context, media_types="oci")


@every_way
@pytest.mark.usefixtures("containerd_engine")
def test_attestations_and_dockers_media_types_exclude_each_other(way: str, name: str, context: Path) -> None:
    message = r"need OCI media types\. .* PREFECT_DOCKER_MEDIA_TYPES=docker\.\nTIP .*DISABLE_ATTESTATIONS=true"
    with settings(media_types="docker"), pytest.raises(BuildError, match=message):
        WAYS[way](name, context)


@pytest.mark.usefixtures("containerd_engine")
def test_several_platforms_have_an_index_of_the_media_types(name: str, context: Path) -> None:
    with settings(media_types="docker", disable_attestations=True):
        WAYS["build_image"](name, context, platforms=["linux/amd64", "linux/arm64"])
    assert pushed(name).manifest()["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json"
