"""Builds with Podman's own builder, Buildah, if docker-py's engine is Podman.

Buildah adds no attestations, and takes the layers of the requested platform. So docker-py's own build is used, with its
events and errors. This module decides whether Buildah builds an image, and checks the result.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.buildx import docker_cli, explanations, pipeline, result_checks
from prefect_docker_attest.buildx.docker_py_build import as_json_lines, error_event
from prefect_docker_attest.errors import BuildFailed
from prefect_docker_attest.failures import Failure
from prefect_docker_attest.options import values
from prefect_docker_attest.options.podman_options import podman_options

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from prefect_docker_attest.build_settings import BuildSettings
    from prefect_docker_attest.buildx.cli_context import CliContext
    from prefect_docker_attest.buildx.docker_py_build import Event
    from prefect_docker_attest.buildx.docker_py_engine import DockerPyEngine
    from prefect_docker_attest.options.podman_options import PodmanOptions

_REPLACED = Failure(
    notes=("Another engine has taken the place of Podman since this client was made, and its classic builder built.",),
    tip="Build again with a new client.",
)
_ID = re.compile(r"(?:sha256:)?([0-9a-f]{64})\s*")


def find_podman(engine: DockerPyEngine | CliContext, builder: object = None) -> str:
    """Return the version of Podman, if Podman's own builder must build an image; ``""`` if buildx builds it.

    buildx builds in all engines but Podman, and for Podman if its builder is outside. On Podman it is asked for its
    builder, which takes 0.1 s. With docker-py, a Docker Engine is asked nothing.

    Args:
        engine: the engine
        builder: the option ``builder`` of the image
    """
    try:
        podman = engine.podman
    except Exception:  # docker-py raises different ones; the build shows a better error
        return ""
    if not podman:
        return ""
    try:
        found = docker_cli.find_builder(engine.docker, values.builder("builder", builder))
    except OSError:  # there is no docker CLI
        return podman
    return "" if found and found.is_outside else podman


def build(
    original: Callable[..., Iterable[Any]],
    engine: DockerPyEngine,
    given: Mapping[str, Any],
    settings: BuildSettings,
    podman: str,
) -> Generator[Event | bytes, None, Any]:
    """Build an image with docker-py's own build, and check it.

    Args:
        original: docker-py's ``APIClient.build``
        engine: the engine, which is Podman
        given: parameters of docker-py's ``build`` and those in `docker_py_options.BUILDX_ONLY`, by name
        settings: the settings of the build
        podman: version of Podman

    Returns:
        docker-py's events, and one more: the builder, or an error if Podman made another image than requested

    Raises:
        OptionError: Podman does not support an option or setting, or its value is wrong
        Exception: what docker-py's build raises
    """
    options = podman_options(given, settings, podman, lambda: engine.platform)
    pipeline.warn_of_overruled(options.overruled)
    events = original(engine.api, **{**options.docker_py, "decode": True})
    checked = _checked(events, engine, options, podman, quiet=bool(given.get("quiet")))
    return checked if given.get("decode") else as_json_lines(checked)


def _checked(
    events: Iterable[Event], engine: DockerPyEngine, options: PodmanOptions, podman: str, *, quiet: bool
) -> Generator[Event, None, None]:
    """Yield the events of docker-py's build and, if it succeeded, what is known about its image."""
    image, failed = "", False
    for event in events:
        failed = failed or "error" in event
        image = _image_of(event, quiet=quiet) or image
        yield event
    if not image or failed:
        return
    try:
        unchecked = _check(image, engine, options)
    except BuildFailed as error:
        yield error_event(BuildFailed(explanations.naming_settings(error.failure, options.settings)))
        return
    if not quiet:
        yield {"stream": f"Built by Podman {podman}, whose builder adds no attestations{unchecked}\n"}


def _check(image: str, engine: DockerPyEngine, options: PodmanOptions) -> str:
    """Check the image with this id, and return what was not checked, for the last line of the output.

    Raises:
        BuildFailed: it is not the requested image, or the engine is not Podman any more
    """
    found = engine.podman_image(image)
    if found is None and not engine.is_still_podman():
        raise BuildFailed(_REPLACED)
    return result_checks.check_podman_image(found, options.platform)


def _image_of(event: Event, *, quiet: bool) -> str:
    """Return the id of the built image, if an event names it; ``""`` if it does not."""
    # With `quiet`, the id is the only line of output.
    named = event.get("stream", "") if quiet else (event.get("aux") or {}).get("ID", "")
    found = _ID.fullmatch(named)
    return found[1] if found else ""
