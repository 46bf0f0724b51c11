"""Builds in place of docker-py's ``APIClient.build``, with the same options and events."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.buildx import explanations, from_builder, pipeline
from prefect_docker_attest.errors import BuildFailed
from prefect_docker_attest.options.docker_py_options import docker_py_request

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from prefect_docker_attest.build_settings import BuildSettings
    from prefect_docker_attest.buildx.docker_py_engine import DockerPyEngine
    from prefect_docker_attest.buildx.pipeline import BuiltImage, PreparedBuild

Event = dict[str, Any]
"""One event of docker-py's build output. Its key is ``stream``, ``aux`` or ``error``."""


def build(
    engine: DockerPyEngine,
    given: Mapping[str, Any],
    settings: BuildSettings,
    *,
    later_name: str = "",
    returns_image: bool = False,
) -> Generator[Event | bytes, None, bool]:
    """Build an image in the engine of a docker-py client.

    Args:
        engine: the engine
        given: parameters of docker-py's ``build`` and those in `docker_py_options.BUILDX_ONLY`, by name
        settings: the settings of the build
        later_name: name that the caller will give an untagged image
        returns_image: whether docker-py's ``client.images.build`` returns the image

    Returns:
        docker-py's events during the build: dicts if ``decode`` is set, else lines of JSON. The last event of a failed
        build has the key ``error``. The generator returns `True`, unless it is closed before its end.

    Raises:
        TypeError: as docker-py raises it: neither ``path`` nor ``fileobj`` is set, or ``path`` is not a folder
        OSError: the Dockerfile is outside the context and cannot be read
        OptionError: buildx does not support an option, or the value of an option or setting is wrong
        docker.errors.DockerException: the engine does not answer
    """
    request = docker_py_request(given)
    loads = "client.images.build returns an image of the engine" if returns_image else ""
    prepared = pipeline.prepare(request, settings, engine, later_name=later_name, loads=loads)
    events = _events(prepared, engine)
    return events if given.get("decode") else as_json_lines(events)


def _events(build: PreparedBuild, engine: DockerPyEngine) -> Generator[Event, None, bool]:
    options = build.request.options
    try:
        image = yield from pipeline.run(build, lambda line: {"stream": line})
    except BuildFailed as error:
        explanations.log_output_of(error)
        yield error_event(error)
        return True
    image_id, names = _remembered(build, engine, image)
    yield {"aux": {"ID": image_id}}
    if options.quiet:
        yield {"stream": f"{image_id}\n"}
        return True
    # docker-py's `client.images.build` and Prefect's own tests search for this sentence.
    yield {"stream": f"Successfully built {image_id.removeprefix('sha256:')[:12]}\n"}
    for line in (*names, image.closing_line):
        yield {"stream": f"{line}\n"}
    return True


def _remembered(build: PreparedBuild, engine: DockerPyEngine, image: BuiltImage) -> tuple[str, list[str]]:
    """Return the id of an image and lines about its names; remember the image if its builder has pushed it."""
    options = build.request.options
    if options.pushed_to:
        pushed = from_builder.remember(engine.api, options.tags[0], image.metadata, image.replaced)
        return pushed.digest, [f"Its builder pushed {pushed}. The tag {pushed.name.tag} moves to it with the push."]
    for tag in options.tags:
        from_builder.forget(engine.api, tag)
    return image.id, [f"Successfully tagged {tag}" for tag in options.tags]


def error_event(error: BuildFailed) -> Event:
    """Return docker-py's event for a failed build."""
    return {"errorDetail": {"message": str(error)}, "error": str(error)}


def as_json_lines(events: Generator[Event, None, Any]) -> Generator[bytes, None, bool]:
    """Return events in the form that docker-py gives without ``decode``."""
    with contextlib.closing(events):
        for event in events:
            yield json.dumps(event).encode() + b"\r\n"
    return True
