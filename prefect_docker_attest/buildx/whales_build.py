"""Runs ``docker buildx build`` in place of python-on-whales, for Prefect's ``build_backend="buildx"``.

It is not enough to pass ``provenance=False`` to python-on-whales, for three reasons. It reads the image's id from
buildx's ``--iidfile``, which is wrong without attestations (buildx before 0.36). It shows progress only on the
terminal. Its errors do not contain BuildKit's messages, which Prefect needs to decide about retries.

Prefect's own checks, labels and retries are not changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from prefect_docker_attest.buildx import causes, docker_cli, failure, result, run
from prefect_docker_attest.buildx.engine import uses_containerd_store
from prefect_docker_attest.errors import BuildFailed
from prefect_docker_attest.options import default_values, python_on_whales

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect_docker_attest.options.defaults import Defaults
    from prefect_docker_attest.options.table import BuildxOptions


def build(
    python_on_whales_options: Mapping[str, Any],
    stream_progress_to: TextIO | None,
    *,
    disable_attestations: bool,
    defaults: Defaults,
) -> str | None:
    """Build one image in the docker CLI's current context. Prefect pushes the image from the same context.

    Args:
        python_on_whales_options: parameters of python-on-whales' ``buildx.build`` by name, including ``context_path``
        stream_progress_to: file to which each line of output is written
        disable_attestations: build without attestations, whatever the image requests
        defaults: settings for options that the image does not set

    Returns:
        id of the image in the engine; `None` for an image that was pushed instead, as in python-on-whales

    Raises:
        TypeError: python-on-whales does not have an option
        OptionError: the value of an option or setting is wrong, or cannot be used here
        BuildFailed: the build failed, or its result is not the requested image
    """
    call = python_on_whales.read(python_on_whales_options)
    named = default_values.named(call.options, python_on_whales_options)
    # With build_backend, an image itself says whether its builder pushes it.
    defaults = defaults.without([*named, "push_from_builder"])
    options = _with_defaults(call.options, defaults)
    if disable_attestations:
        options = run.without_attestations(options)
    stream = stream_progress_to if call.shows_progress else None
    try:
        with causes.naming_settings(defaults):
            with run.start(options, disable_attestations=disable_attestations) as build:
                for line in build.lines():
                    if stream:
                        stream.write(line)
                        stream.flush()
                metadata = build.finish()
            image_id = None
            if not options.push:
                engine = "the Docker Engine of the docker CLI's current context"
                image_id = result.image_id(
                    metadata, options, result.inspect_by_cli, engine=engine, docker=docker_cli.DOCKER
                )
            elif options.multi_platform and disable_attestations:
                result.check_index_in_registry(options.tags[0], metadata)
    except BuildFailed as error:
        if stream is None:
            failure.log_output_of(error)
        raise
    if call.metadata_file is not None:
        Path(call.metadata_file).write_text(json.dumps(metadata), encoding="utf-8")
    return image_id


def _with_defaults(options: BuildxOptions, defaults: Defaults) -> BuildxOptions:
    try:
        options = default_values.apply(defaults, options, "", docker_cli.engine_platform)
        if options.media_types == "oci" and not _makes_oci(options):
            raise default_values.oci_refused(defaults.origin("media_types"))
    except OSError as error:
        raise BuildFailed(failure.cannot_start(error)) from error
    return options


def _makes_oci(options: BuildxOptions) -> bool:
    """Whether the image can have OCI media types. If docker does not answer, the result is `True`."""
    answer = docker_cli.run_docker(("info", "--format={{json .}}"))
    if answer.returncode != 0 or uses_containerd_store(json.loads(answer.stdout)):
        return True
    return options.push and not docker_cli.builder(docker_cli.DOCKER, options.builder).is_engine
