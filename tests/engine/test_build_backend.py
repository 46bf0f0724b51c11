"""Prefect's `build_backend="buildx"` (since 3.6.24) with the setting on: its options, and no attestations."""

from __future__ import annotations

import importlib
import inspect
import io
import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prefect.utilities.dockerutils import BuildError

from engines.machine import free_port
from engines.published import Published
from support.names import BUSYBOX, PREFIX
from support.ways import settings

MODULE = next((name for name in ("_internal.buildx", "docker._buildx") if find_spec(f"prefect.{name}")), "")
if not MODULE:
    pytest.skip("this Prefect has no build_backend", allow_module_level=True)
pytest.importorskip("python_on_whales")

from prefect.docker import DockerImage  # noqa: E402 only a Prefect that has build_backend is of interest
from prefect_docker.deployments import steps  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Setting
    from engines.private import Engine, Registry


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {BUSYBOX} AS base\nARG NAME=nobody\nCOPY . /app/\nRUN echo hello $NAME\n")
    (folder / "new").write_text(str(uuid4()))
    monkeypatch.chdir(folder)
    return folder


def _image(registry: Registry, tag: str, **options: Any) -> tuple[DockerImage, io.StringIO]:
    stream = io.StringIO()
    image = DockerImage(f"{registry.address}/backend", tag, "Dockerfile", stream, build_backend="buildx", **options)
    return image, stream


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize(
    "given", [{}, {"media_types": "oci"}, {"cache_from": "type=registry,ref=registry.example/{platform}"}], ids=str
)
def test_without_docker_the_build_says_so(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    image = DockerImage("app", "v1", "Dockerfile", build_backend="buildx")
    with (
        settings(disable_attestations=True, **given),
        pytest.raises(BuildError, match="`docker` command was not found"),
    ):
        image.build()


@pytest.mark.usefixtures("context", "switched_on")
def test_the_image_is_loaded_streamed_and_pushed_as_one_manifest(engine: Engine, registry: Registry) -> None:
    image, stream = _image(registry, f"loaded-{engine.store}", build_args={"NAME": "whale"}, provenance=True)
    image.build()
    own, of_prefect = stream.getvalue().splitlines()[-2:]
    assert own.startswith("Built by docker buildx without attestations (PREFECT_DOCKER_DISABLE_ATTESTATIONS, ")
    assert of_prefect.startswith("Built image: sha256:")
    image.push()
    assert "hello whale" in stream.getvalue()
    assert Published(image.reference).is_one_manifest


@pytest.mark.usefixtures("context", "switched_on")
def test_push_during_the_build_pushes_one_manifest(engine: Engine, registry: Registry) -> None:
    image, stream = _image(registry, f"pushed-{engine.store}", push=True)
    image.build()
    image.push()
    assert "hello nobody" in stream.getvalue()
    assert "\nBuilt and pushed by docker buildx without attestations (PREFECT_DOCKER_DISABLE_A" in stream.getvalue()
    assert Published(image.reference).is_one_manifest


@pytest.mark.usefixtures("context", "containerd_engine")
def test_a_failed_push_is_not_put_down_to_a_setting_that_is_not_used() -> None:
    name = f"127.0.0.1:{free_port()}/{PREFIX}/app"
    image = DockerImage(name, "v1", "Dockerfile", build_backend="buildx", push=True)
    with settings(push_from_builder=True), pytest.raises(BuildError) as failed:
        image.build()
    assert "failed to push" in str(failed.value)
    assert "PREFECT_DOCKER_PUSH_FROM_BUILDER" not in str(failed.value)


@pytest.mark.usefixtures("context", "switched_on", "containerd_engine", "emulation")
def test_two_platforms_are_pushed_as_an_index_without_attestations(registry: Registry) -> None:
    image, _ = _image(registry, "two", push=True, platforms=["linux/amd64", "linux/arm64"])
    image.build()
    assert sorted(Published(image.reference).platforms()) == ["linux/amd64", "linux/arm64"]


@pytest.mark.usefixtures("context", "switched_on", "graphdriver_engine")
def test_two_platforms_on_the_graphdriver_store_fail_with_advice(registry: Registry) -> None:
    image, _ = _image(registry, "two", push=True, platforms=["linux/amd64", "linux/arm64"])
    with pytest.raises(BuildError, match="Several platforms need the containerd image store"):
        image.build()


@pytest.mark.skipif(
    "build_backend" not in inspect.signature(steps.build_docker_image).parameters,
    reason="the step of this prefect-docker has no build_backend",
)
@pytest.mark.usefixtures("switched_on")
def test_the_step_builds_tags_and_pushes(engine: Engine, registry: Registry, context: Path) -> None:
    name = f"{registry.address}/backend-step-{engine.store}"
    options: dict[str, Any] = {"build_backend": "buildx", "ignore_cache": True}
    built = steps.build_docker_image(name, tag="v1", additional_tags=["v2"], path=str(context), **options)
    steps.push_docker_image(name, tag="v1", additional_tags=["v2"], **options)
    assert built["image_id"].startswith("sha256:")
    assert all(Published(f"{name}:{tag}").is_one_manifest for tag in ("v1", "v2"))


@pytest.mark.usefixtures("context", "containerd_engine")
def test_setting_off_prefect_builds_as_usual(registry: Registry, setting: Setting) -> None:
    image, stream = _image(registry, "off")
    with setting(False):
        image.build()
        image.push()
    assert "hello nobody" not in stream.getvalue()
    assert "unknown/unknown" in Published(image.reference).platforms()


@pytest.mark.usefixtures("switched_on", "some_engine")
def test_a_failure_is_a_build_error_and_network_errors_are_retried(
    registry: Registry, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"prefect.{MODULE}")
    attempts: list[str] = []
    build = module._buildx_build_once

    def counted(*args: Any, **kwargs: Any) -> str:
        attempts.append(kwargs["dockerfile"])
        image: str = build(*args, **kwargs)
        return image

    monkeypatch.setattr(module, "_buildx_build_once", counted)
    monkeypatch.setattr(module, "_BUILD_RETRY_DELAY_BASE", 0)
    image, stream = _image(registry, "failing")
    (context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN echo connection reset; exit 5\n")
    with pytest.raises(BuildError, match="returned a non-zero code: 5"):
        image.build()
    assert len(attempts) == 1
    assert "connection reset" in stream.getvalue()


@pytest.mark.usefixtures("switched_on", "some_engine")
def test_progress_false_shows_nothing_and_metadata_file_is_written(
    registry: Registry, context: Path, tmp_path: Path
) -> None:
    image, stream = _image(registry, "quiet", progress=False, metadata_file=tmp_path / "metadata.json")
    image.build()
    assert stream.getvalue().startswith("Built image: ")
    assert json.loads((tmp_path / "metadata.json").read_text())["containerimage.digest"] in stream.getvalue()
    assert context.exists()


@pytest.mark.usefixtures("context", "switched_on", "some_engine")
@pytest.mark.parametrize(
    ("options", "error", "expected"),
    [
        ({"output": {"type": "oci", "dest": "x.tar"}}, BuildError, "output={'type': 'oci', 'dest': 'x.tar'}"),
        ({"no_such_option": 1}, TypeError, "unexpected keyword argument 'no_such_option'"),
        ({"build_args": {"N": 3}}, BuildError, r"build_args\['N'\] must be a string, not int"),
    ],
)
def test_an_unsupported_option_is_named(options: dict[str, Any], error: type[Exception], expected: str) -> None:
    image = DockerImage("refused", "x", "Dockerfile", None, build_backend="buildx", **options)
    with pytest.raises(error, match=expected.replace("{", r"\{")):
        image.build()
