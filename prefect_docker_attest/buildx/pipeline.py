"""One build, from what a caller asks for to the image: the story of this package.

Both ways of Prefect to build come here: docker-py's (`docker_py_build`) and python-on-whales' (`whales_build`).
`prepare` runs when the build is called, so that wrong options raise at the call. `run` yields the output.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from docker import utils

from prefect_docker_attest.buildx import cached_compression, docker_cli, explanations, from_builder, result_checks
from prefect_docker_attest.buildx.base_images import BaseImages
from prefect_docker_attest.buildx.buildx_run import running_build
from prefect_docker_attest.buildx.closing_line import closing_line
from prefect_docker_attest.buildx.evidence import Evidence
from prefect_docker_attest.buildx.metadata import Metadata
from prefect_docker_attest.buildx.unreadable_files import unreadable_warnings
from prefect_docker_attest.errors import BuildFailed
from prefect_docker_attest.failures import Failure
from prefect_docker_attest.layer_compression import GZIP
from prefect_docker_attest.names import SETTING, logger
from prefect_docker_attest.options import default_values
from prefect_docker_attest.options.cache_entries import refuse_own_tag
from prefect_docker_attest.options.encodings import check_dockerignore

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from prefect_docker_attest.build_settings import BuildSettings
    from prefect_docker_attest.buildx.buildx_run import Outcome
    from prefect_docker_attest.buildx.target import Target
    from prefect_docker_attest.options.request import BuildRequest
    from prefect_docker_attest.options.table import BuildxOptions

T = TypeVar("T")


@dataclass(frozen=True)
class PreparedBuild:
    """A build that is ready to run.

    Attributes:
        request: the build, with complete options
        settings: the settings that it uses
        target: the engine
    """

    request: BuildRequest
    settings: BuildSettings
    target: Target


@dataclass(frozen=True)
class BuiltImage:
    """The image that a build made.

    Attributes:
        id: id of the image in the engine; ``""`` if the builder pushed it instead
        metadata: buildx's metadata about the image
        replaced: id of the engine's image of that name before the build, if the builder pushed without a tag
        closing_line: last line for the output, without a line end
    """

    id: str
    metadata: Metadata
    replaced: str | None
    closing_line: str


def prepare(
    request: BuildRequest, settings: BuildSettings, target: Target, *, later_name: str = "", loads: str = ""
) -> PreparedBuild:
    """Complete the options of a build with the settings and with facts about the engine.

    Args:
        request: what the caller asks for
        settings: the settings of the build
        target: the engine
        later_name: name that the caller will give an untagged image
        loads: why the image must be loaded into the engine; ``""`` if its builder may push it

    Raises:
        OptionError: the engine does not support an option, or the value of a setting is wrong
        BuildFailed: the .dockerignore is in UTF-16
        OSError: docker cannot be started
    """
    for warning in request.warnings:
        logger.warning("%s", warning)
    if os.path.isabs(request.options.context):
        check_dockerignore(request.options.context, request.options.local_dockerfile or "")
    settings = settings.without(request.own)
    options = _complete(request, target)
    pushes = settings.push_from_builder and _builder_pushes(options, target, loads)
    options = default_values.apply_defaults(settings, options, later_name, lambda: target.platform)
    refuse_own_tag(settings.origin("cache_to"), options.cache_to, options.tags or (later_name,))
    if settings.disable_attestations:
        warn_of_overruled(options.requested_attestations)
        options = options.without_attestations()
    if pushes:
        options = replace(options, pushed_to=utils.parse_repository_tag(options.tags[0])[0])
    options = _fitting_store(options, settings, target)
    config_proxies = request.config_proxies and not request.replaced_proxies
    return PreparedBuild(replace(request, options=options, config_proxies=config_proxies), settings, target)


def run(build: PreparedBuild, show: Callable[[str], T]) -> Generator[T, None, BuiltImage]:
    """Run a build, yield its output, and return its image.

    Args:
        build: the build
        show: converts a line of the output into what is yielded

    Raises:
        BuildFailed: the build failed, or its result is not the requested image
    """
    options, target = build.request.options, build.target
    base_images = BaseImages(target, options)
    cached_compression.remember(options)
    try:
        replaced = target.image_id(options.tags[0]) if options.pushed_to else None
        with running_build(build.request, target.docker) as process:
            # Both read files while docker starts.
            unreadable = unreadable_warnings(options)
            source = build.settings.find_source("disable_attestations") if options.attestations_disabled else ""
            for line in process.lines():
                base_images.read_line(line)
                if not options.quiet:  # with quiet, buildx prints an id that can be wrong
                    yield show(line)
            outcome = process.wait()
            metadata = _metadata(build, outcome)
        result_checks.check_manifest(metadata, options)
        image = _delivered(options, target, metadata)
    except BuildFailed as error:
        raise BuildFailed(explanations.naming_settings(error.failure, build.settings)) from error
    for text in outcome.cache_errors.unwritten:
        logger.warning("The image was built, but its build cache was not written: %s", text)
    for text in outcome.cache_errors.unread:
        logger.warning("The image was built without a build cache, which cannot be read: %s", text)
    for warning in (*base_images.warnings(outcome.builder), *unreadable):
        logger.warning("%s", warning)
        if not options.quiet:
            yield show(f"WARNING: {warning}\n")
    return BuiltImage(image, metadata, replaced, closing_line(options, metadata, source))


def _complete(request: BuildRequest, target: Target) -> BuildxOptions:
    """Return the options with complete platforms, and with the proxies that docker-py would add."""
    options = request.options
    if any(not platform.is_complete and not platform.is_local for platform in options.platforms):
        engine = target.platform
        completed = [platform.completed(engine) if engine else platform for platform in options.platforms]
        options = replace(options, platforms=tuple(dict.fromkeys(completed)))
    if request.replaced_proxies and request.config_proxies:
        # In docker-py a build argument replaces the configured proxy, even if its value is `None` or the case of its
        # name is different. The docker CLI compares names with their case, so BuildKit would use the configured proxy.
        proxies = target.proxies()
        others = {name: value for name, value in proxies.items() if name.lower() not in request.replaced_proxies}
        options = replace(options, build_args={**others, **options.build_args})
    return options


def _builder_pushes(options: BuildxOptions, target: Target, loads: str) -> bool:
    reason = loads or from_builder.reason_to_load(options, target.docker)
    if reason:
        logger.debug("%s: the image is loaded into the engine, because %s", from_builder.VARIABLE, reason)
    return not reason


def warn_of_overruled(attestations: Sequence[str]) -> None:
    """Log that an image does not get the attestations that it requests, such as ``provenance=mode=max``."""
    if attestations:
        names = " and ".join(attestations)
        logger.warning("%s overrides %s of this image: it is built without attestations.", SETTING, names)


def _fitting_store(options: BuildxOptions, settings: BuildSettings, target: Target) -> BuildxOptions:
    """Return the options with the compression for the place of the image.

    Raises:
        OptionError: the image goes into an engine without the containerd image store, which cannot hold it
    """
    compression = options.compression or (GZIP if cached_compression.can_differ() else None)
    if not (compression or options.media_types == "oci" or options.annotations):
        return options
    if options.pushed_to or target.uses_containerd_store is not False or _pushed_elsewhere(options, target):
        return replace(options, compression=compression)
    if refused := default_values.refused_by_graphdriver(settings, options):
        raise refused
    return replace(options, compression=None)  # this engine compresses layers itself when it pushes them


def _pushed_elsewhere(options: BuildxOptions, target: Target) -> bool:
    """Whether a builder outside the engine pushes the image, because the image says so."""
    builder = docker_cli.find_builder(target.docker, options.builder) if options.push else None
    return options.push and (builder is None or not builder.is_engine)


def _metadata(build: PreparedBuild, outcome: Outcome) -> Metadata:
    """Return buildx's metadata about the image.

    Raises:
        BuildFailed: the build failed, made no progress for too long, or wrote no metadata
    """
    if outcome.timed_out:
        limit = f"{build.request.idle_timeout:g}"
        note = f"The build was stopped: it printed nothing new for {limit} seconds (timeout={limit})"
        running = f"; running: {outcome.running}" if outcome.running else "."
        raise BuildFailed(Failure(notes=(note + running,), tip="If it only needs more time, increase or omit timeout."))
    if outcome.returncode != 0:
        raise BuildFailed(_explained(build, outcome))
    try:
        return Metadata.parse(outcome.metadata_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BuildFailed(explanations.no_metadata(error)) from error


def _explained(build: PreparedBuild, outcome: Outcome) -> Failure:
    options, docker = build.request.options, build.target.docker
    evidence = Evidence.of_output(outcome.returncode, outcome.lines)
    if not evidence.started and (unusable := docker_cli.plugin_failure(docker, evidence.unknown_flags)):
        return unusable
    builder = outcome.builder
    if builder is None or not builder.is_engine:
        # The output names only the builder's driver. That of a build that fails immediately does not name the builder.
        builder = docker_cli.find_builder(docker, builder.name if builder else options.builder) or builder
    named_id = explanations.named_image_id(evidence, build.target)
    failure = explanations.explain(evidence, options, builder, named_id=named_id)
    return explanations.naming_builder(failure, builder)


def _delivered(options: BuildxOptions, target: Target, metadata: Metadata) -> str:
    """Check that the image is where it belongs, and return its id in the engine; ``""`` if its builder pushed it.

    Raises:
        BuildFailed: the engine does not have the image, the builder reports no digest, or the image has attestations
    """
    checks_index = options.multi_platform and options.attestations_disabled
    if options.pushed_to and not metadata.digest:
        note = f"The builder pushed the image to {options.pushed_to}, but did not report its digest."
        tip = f"Set {from_builder.VARIABLE}=false to load images into the engine."
        raise BuildFailed(Failure(notes=(note,), tip=tip))
    if options.pushed_to or options.push:
        if checks_index:
            result_checks.check_index_in_registry(options.pushed_to or options.tags[0], metadata)
        return ""
    image = result_checks.image_in_engine(metadata, options, target)
    if checks_index:
        result_checks.check_index_in_engine(target, image)
    return image
