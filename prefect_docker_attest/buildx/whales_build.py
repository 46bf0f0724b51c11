"""Builds in place of python-on-whales, for Prefect's ``build_backend="buildx"``.

It is not enough to pass ``provenance=False`` to python-on-whales, for three reasons. It reads the image's id from
buildx's ``--iidfile``, which is wrong without attestations (buildx before 0.36). It shows progress only on the
terminal. Its errors do not contain BuildKit's messages, which Prefect needs to decide about retries.

Prefect's own checks, labels and retries are not changed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from prefect_docker_attest.buildx import explanations, pipeline
from prefect_docker_attest.buildx.cli_context import CliContext
from prefect_docker_attest.buildx.podman_build import find_podman
from prefect_docker_attest.errors import BuildFailed
from prefect_docker_attest.options.podman_options import backend_refused
from prefect_docker_attest.options.whales_options import whales_request

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from prefect_docker_attest.build_settings import BuildSettings
    from prefect_docker_attest.buildx.pipeline import BuiltImage


def build(given: Mapping[str, Any], settings: BuildSettings, stream_progress_to: TextIO | None) -> str | None:
    """Build one image in the docker CLI's current context. Prefect pushes the image from the same context.

    Args:
        given: parameters of python-on-whales' ``buildx.build`` by name, including ``context_path``
        settings: the settings of the build
        stream_progress_to: file to which each line of output is written

    Returns:
        id of the image in the engine; `None` for an image that was pushed instead, as in python-on-whales

    Raises:
        TypeError: python-on-whales does not have an option
        OptionError: the value of an option or setting is wrong, or cannot be used here
        BuildFailed: the build failed, or its result is not the requested image
    """
    request = whales_request(given)
    stream = stream_progress_to if given.get("progress") is not False else None
    context = CliContext()
    if podman := find_podman(context, request.options.builder):
        raise backend_refused(podman)
    try:
        prepared = pipeline.prepare(request, settings, context)
    except OSError as error:
        raise BuildFailed(explanations.cannot_start(error)) from error
    try:
        write = _writer(stream)
        image = _finished(pipeline.run(prepared, write))
    except BuildFailed as error:
        if stream is None:
            explanations.log_output_of(error)
        raise
    metadata_file = given.get("metadata_file")
    if metadata_file is not None:
        Path(os.fspath(metadata_file)).write_text(json.dumps(image.metadata.document), encoding="utf-8")
    write(f"{image.closing_line}\n")
    return image.id or None


def _writer(stream: TextIO | None) -> Callable[[str], None]:
    def write(line: str) -> None:
        if stream:
            stream.write(line)
            stream.flush()

    return write


def _finished(run: Generator[None, None, BuiltImage]) -> BuiltImage:
    """Run a build to its end, and return its image."""
    images: list[BuiltImage] = []

    def delegate() -> Generator[None, None, None]:
        images.append((yield from run))

    for _ in delegate():
        pass
    return images[0]
