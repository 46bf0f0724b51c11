"""The ways to build an image with Prefect, as functions of a name, a folder and options."""

from __future__ import annotations

import inspect
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import prefect.settings
from prefect.docker import DockerImage
from prefect.settings import temporary_settings
from prefect.utilities.dockerutils import ImageBuilder, build_image, docker_client
from prefect_docker.deployments.steps import build_docker_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

HAS_BUILD_BACKEND = bool(find_spec("python_on_whales")) and any(
    find_spec(f"prefect.{name}") for name in ("_internal.buildx", "docker._buildx")
)


def _build_image(name: str, folder: Path, **options: Any) -> None:
    build_image(folder, tag=name, **options)


def _docker_image(name: str, folder: Path, **options: Any) -> None:
    repository, _, tag = name.rpartition(":")
    before = Path.cwd()
    os.chdir(folder)  # Prefect 3.1 ignores the option `context`
    try:
        DockerImage(repository, tag, "Dockerfile", stream_progress_to=None, context=folder, **options).build()
    finally:
        os.chdir(before)


def _build_backend(name: str, folder: Path, **options: Any) -> None:
    _docker_image(name, folder, build_backend="buildx", **options)


def _image_builder(name: str, folder: Path, **options: Any) -> None:
    repository, _, tag = name.rpartition(":")
    first_line, *lines = (folder / "Dockerfile").read_text().splitlines()
    with ImageBuilder(first_line.removeprefix("FROM "), base_directory=folder, **options) as builder:
        for line in lines:
            if line.startswith("COPY "):
                builder.copy(*line.split()[1:])
            else:
                builder.add_line(line)
        image = builder.build()
    with docker_client() as client:
        client.images.get(image).tag(repository, tag)


def _step(name: str, folder: Path, **options: Any) -> None:
    repository, _, tag = name.rpartition(":")
    # The step caches the images that it has built.
    build_docker_image(repository, dockerfile="Dockerfile", tag=tag, path=str(folder), ignore_cache=True, **options)


def _step_with_build_backend(name: str, folder: Path, **options: Any) -> None:
    _step(name, folder, build_backend="buildx", **options)


WAYS: dict[str, Callable[..., None]] = {
    "build_image": _build_image,
    "DockerImage": _docker_image,
    "ImageBuilder": _image_builder,
    "step": _step,
}
if HAS_BUILD_BACKEND:
    WAYS["build_backend"] = _build_backend
    if "build_backend" in inspect.signature(build_docker_image).parameters:
        WAYS["step with build_backend"] = _step_with_build_backend


def settings(**values: object) -> AbstractContextManager[Any]:
    """Set settings of the group ``docker``, named by their fields, inside a ``with``."""
    return temporary_settings(
        {getattr(prefect.settings, f"PREFECT_DOCKER_{name.upper()}"): value for name, value in values.items()}
    )
