"""Each way to build an image with Prefect, on both image stores: the image, and the output for callers."""

from __future__ import annotations

import io
import logging
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prefect.docker import DockerImage
from prefect.utilities.dockerutils import IMAGE_LABELS, ImageBuilder, build_image, docker_client

from engines.published import Published
from prefect_docker_attest.buildx import buildx_run
from prefect_docker_attest.names import SETTING
from support.names import BUSYBOX, PREFIX

if TYPE_CHECKING:
    from conftest import Setting
    from engines.private import Engine, Registry

DOCKERFILE = f"FROM {BUSYBOX}\nCOPY . /app/\nRUN echo built on $(uname -m)\n"


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "new").write_text(str(uuid4()))  # nothing of the build is cached
    (tmp_path / "hello.txt").write_text("hello from the context\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _inspect(name: str) -> dict[str, Any]:
    with docker_client() as client:
        return client.images.get(name).attrs


@pytest.mark.usefixtures("switched_on", "amd64")
def test_build_image_returns_the_id_that_the_engine_holds_under_the_tag(
    engine: Engine, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTING, "true")  # the source of the setting, which is on already
    output = io.StringIO()
    image_id = build_image(context, tag=f"{PREFIX}/build-image:tagged", stream_progress_to=output)

    assert _inspect(f"{PREFIX}/build-image:tagged")["Id"] == image_id
    assert _inspect(image_id)["Config"]["Labels"] == IMAGE_LABELS
    shown = output.getvalue()
    assert "built on x86_64" in shown
    digest = image_id.removeprefix("sha256:")
    assert shown.endswith(
        f"Successfully built {digest[:12]}\nSuccessfully tagged {PREFIX}/build-image:tagged\n"
        "Built by docker buildx without attestations (PREFECT_DOCKER_DISABLE_ATTESTATIONS, environment)\n"
    )
    content = engine.output_of(image_id, "cat", "/app/hello.txt")
    assert content == "hello from the context\n"


@pytest.mark.usefixtures("engine", "switched_on")
@pytest.mark.parametrize("given", ["an archive", "a Dockerfile outside of the context"])
def test_standard_input_leaves_no_temporary_file(
    context: Path, given: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)  # docker-py looks the image up again
    outside = tmp_path_factory.mktemp("outside") / "Dockerfile"
    outside.write_text(f"{DOCKERFILE}RUN test -e /app/new\n")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(context, arcname=".")
    archive.seek(0)
    options: dict[str, Any] = {"path": str(context), "dockerfile": str(outside)}
    if given == "an archive":
        options = {"fileobj": archive, "custom_context": True}
    with docker_client() as client:
        client.images.build(**options)

    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("engine", "switched_on")
def test_an_image_without_a_tag_is_in_the_engine_under_its_id(context: Path) -> None:
    image_id = build_image(context)

    assert not _inspect(image_id)["RepoTags"]
    with docker_client() as client:
        assert client.images.get(image_id).tag(f"{PREFIX}/build-image", tag="by-id")
    assert _inspect(f"{PREFIX}/build-image:by-id")["Id"] == image_id


@pytest.mark.usefixtures("engine", "switched_on")
def test_a_tag_that_another_image_has_moves_to_the_new_one(context: Path) -> None:
    first = build_image(context, tag=f"{PREFIX}/build-image:moving")
    (context / "hello.txt").write_text("something else")
    second = build_image(context, tag=f"{PREFIX}/build-image:moving")

    assert first != second
    assert _inspect(f"{PREFIX}/build-image:moving")["Id"] == second


@pytest.mark.usefixtures("engine", "switched_on", "amd64")
def test_images_build_of_docker_py_finds_its_image(context: Path) -> None:
    with docker_client() as client:
        log: Any
        image, log = client.images.build(path=str(context), tag=f"{PREFIX}/build-image:object")
    assert image.id == _inspect(f"{PREFIX}/build-image:object")["Id"]
    assert any("built on x86_64" in event.get("stream", "") for event in log)


@pytest.mark.usefixtures("engine", "context", "switched_on")
def test_image_builder_builds_its_instructions(tmp_path: Path, engine: Engine) -> None:
    with ImageBuilder(BUSYBOX, base_directory=tmp_path) as builder:
        builder.copy("hello.txt", "/copied.txt")
        builder.write_text("written", "/written.txt")
        image_id = builder.build()
    content = engine.output_of(image_id, "cat", "/copied.txt", "/written.txt")
    assert content == "hello from the context\nwritten"


@pytest.mark.usefixtures("context", "switched_on", "amd64", "emulation")
@pytest.mark.parametrize("platform", ["linux/amd64", "arm64", None])
def test_docker_image_is_pushed_as_one_manifest_of_the_platform(
    engine: Engine, registry: Registry, platform: str | None
) -> None:
    options: dict[str, Any] = {} if platform is None else {"platform": platform}
    name = f"{registry.address}/docker-image-{engine.store}"
    image = DockerImage(name, tag=(platform or "native").rpartition("/")[2], dockerfile="Dockerfile", **options)
    image.build()
    image.push()

    published = Published(image.reference)
    assert published.is_one_manifest
    assert all(published.layers_match())
    assert published.config()["architecture"] == ("arm64" if platform == "arm64" else "amd64")


@pytest.mark.usefixtures("engine", "context")
def test_setting_off_the_classic_builder_builds(setting: Setting) -> None:
    output = io.StringIO()
    with setting(False):
        build_image(Path.cwd(), tag=f"{PREFIX}/build-image:classic", stream_progress_to=output)
    assert "Step 1/" in output.getvalue()
    assert "buildx" not in output.getvalue()


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("option", [{"provenance": False}, {"sbom": False}])
def test_setting_off_an_image_with_an_attestation_option_is_built_by_buildx(
    setting: Setting, engine: Engine, registry: Registry, option: dict[str, Any]
) -> None:
    # With only sbom=False, buildx still adds its default provenance. The graphdriver store has no attestations.
    output = io.StringIO()
    # Prefect 3.1 passes the stream on as an option of `build_image`.
    options: dict[str, Any] = {**option, "stream_progress_to": output}
    image = DockerImage(f"{registry.address}/per-image", tag="one", dockerfile="Dockerfile", **options)
    with setting(False):
        image.build()
        last = output.getvalue().splitlines()[-1]
        image.push()
    attested = engine.store == "containerd" and option != {"provenance": False}
    assert Published(image.reference).is_one_manifest != attested
    assert "Step 1/" not in output.getvalue()
    assert ("with attestations" in last, "without attestations" in last) == (attested, option == {"provenance": False})


@pytest.mark.usefixtures("engine")
def test_setting_off_an_image_without_attestation_options_is_built_by_docker_py(
    setting: Setting, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []

    def build(_api: object, *args: object, **kwargs: object) -> list[dict[str, Any]]:
        calls.append((args, kwargs))
        return [{"aux": {"ID": "sha256:what docker-py said"}}]

    monkeypatch.setattr("docker.api.build.BuildApiMixin.build", build)
    with setting(False):
        assert build_image(context, tag="x:y", nocache=True, no_such_option=1) == "sha256:what docker-py said"
    expected = {"path": str(context), "tag": "x:y", "dockerfile": "Dockerfile", "pull": False, "decode": True}
    assert calls == [((), {**expected, "labels": IMAGE_LABELS, "platform": None, "nocache": True, "no_such_option": 1})]


@pytest.mark.usefixtures("some_engine", "switched_on")
@pytest.mark.parametrize("quiet", [False, True])
def test_the_running_step_is_shown_if_nothing_is_printed(
    context: Path, quiet: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(buildx_run, "_SILENCE", 1.5)
    (context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY new /\nRUN sleep 5\n")
    output = io.StringIO()
    with caplog.at_level(logging.INFO):
        build_image(context, stream_progress_to=output, quiet=quiet)
    notice = "No output for 1.5 s" if quiet else "No output for 1.5 s; running: [3/3] RUN sleep 5\n"
    assert notice in (caplog.text if quiet else output.getvalue())
    assert "No output" not in (output.getvalue() if quiet else caplog.text)
