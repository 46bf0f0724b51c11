"""Runs ``docker buildx build``: starts it, streams its output, and returns its metadata."""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from prefect_docker_attest.buildx import cache, causes, docker_cli, failure, result
from prefect_docker_attest.buildx.guard import Guard
from prefect_docker_attest.buildx.process import Command
from prefect_docker_attest.buildx.progress import ProgressTracker
from prefect_docker_attest.errors import BuildFailed
from prefect_docker_attest.names import SETTING, logger
from prefect_docker_attest.options import build_args
from prefect_docker_attest.options.table import arguments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prefect_docker_attest.options.table import BuildxOptions

_OFF = ("0", "f", "false")  # the values that buildx reads as false (Go's strconv.ParseBool)
_KEPT_LINES, _KEPT_CHARACTERS = 200, 2000  # the end of the output that is kept for the message of a failure


def without_attestations(options: BuildxOptions) -> BuildxOptions:
    """Return the same options without attestations. A warning names the attestations that the image requests."""
    requested = {"provenance": options.provenance, "sbom": options.sbom, "attest": ",".join(options.attest)}
    overruled = [f"{name}={value}" for name, value in requested.items() if value and value.lower() not in _OFF]
    if overruled:
        logger.warning(
            "%s overrides %s of this image: it is built without attestations.", SETTING, " and ".join(overruled)
        )
    return replace(options, provenance="false", sbom="false", attest=())


@contextlib.contextmanager
def start(
    options: BuildxOptions,
    *,
    disable_attestations: bool,
    docker: Sequence[str] = docker_cli.DOCKER,
    stdin: IO[bytes] | None = None,
    idle_timeout: float | None = None,
    config_proxies: bool = True,
) -> Iterator[Build]:
    """Start ``docker buildx build``. Leaving the context stops it.

    Args:
        options: options of the build
        disable_attestations: whether the image must not have attestations
        docker: the docker CLI, with the flags that select its engine
        stdin: file with the build context or the Dockerfile, if one of them is ``-``
        idle_timeout: seconds without progress after which the build is stopped; `None` for no limit
        config_proxies: whether the proxies in the docker CLI's configuration become build arguments

    Raises:
        BuildFailed: docker cannot be started
    """
    with contextlib.ExitStack() as cleanup:
        guard = cleanup.enter_context(Guard())
        folder = guard.folder
        environment = _environment(disable_attestations=disable_attestations)
        if stdin:
            # Older versions of buildx do not delete the temporary copy of standard input (docker/buildx#3117). It is
            # deleted with this folder.
            environment |= {"TMPDIR": str(folder), "TMP": str(folder)}
        if not config_proxies:
            _remove_config_proxies(environment, folder)
        for warning in cache.inactive(options, environment):
            logger.warning("%s", warning)
        prepared = build_args.prepare(options.build_args, environment)
        if prepared.visible_credentials:
            logger.warning(
                "The values of the build arguments %s are visible on the command line of the build. They are not "
                "passed in its environment, because docker and its helpers read these names there. Use "
                "secrets=['id=NAME,env=NAME'] for credentials.",
                ", ".join(prepared.visible_credentials),
            )
        metadata_file = folder / "metadata.json"
        command = Command(
            [*docker, "buildx", "build", *arguments(options, prepared.flags, str(metadata_file))],
            environment={**environment, **prepared.environment},
            stdin=stdin,
            idle_timeout=idle_timeout,
            made_progress=ProgressTracker(),
            guard=guard,
        )
        try:
            cleanup.enter_context(command)
        except OSError as error:
            raise BuildFailed(failure.cannot_start(error)) from error
        yield Build(command, options, metadata_file, disable_attestations, docker, idle_timeout)


@dataclass
class Build:
    """A build that `start` has started."""

    _command: Command
    _options: BuildxOptions
    _metadata_file: Path
    _disable_attestations: bool
    _docker: Sequence[str]
    _idle_timeout: float | None
    _tail: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    _cache_exports: cache.CacheExports = field(default_factory=cache.CacheExports)
    _builder: docker_cli.Builder | None = None

    def lines(self) -> Iterator[str]:
        """Yield the lines of the output when they are printed. Values of build arguments are replaced with names."""
        starts = True
        for line in map(build_args.Mask(self._options.build_args), self._command.lines()):
            # A long line comes in pieces. Only the first piece is kept: another piece could start with "ERROR: ".
            if starts:
                self._tail.append(line[:_KEPT_CHARACTERS])
                self._cache_exports.read(line)
                self._builder = self._builder or causes.builder_of(line)
            starts = line.endswith("\n")
            yield line

    def finish(self) -> result.Metadata:
        """Return buildx's metadata about the image. Call it after `lines` has ended.

        Raises:
            BuildFailed: the build failed, made no progress for too long, or wrote no metadata; or the image has
                attestations that are disabled, or other media types than requested
        """
        returncode = self._command.wait()
        if self._command.timed_out:
            limit = f"{self._idle_timeout:g}"
            raise BuildFailed(
                f"The build was stopped: it printed nothing new for {limit} seconds (timeout={limit}).\n"
                "TIP Increase timeout, or omit it."
            )
        lines = [line.rstrip("\r\n") for line in self._tail]
        if returncode != 0:
            dockerfile = self._options.file or "Dockerfile"
            text = failure.explain(returncode, lines, dockerfile, self._docker)
            # The output of a build that fails immediately does not name the builder.
            builder = self._builder or docker_cli.builder(self._docker, self._options.builder)
            raise BuildFailed(causes.naming_builder(text, builder), failure.failed_output(lines))
        metadata = self._metadata()
        if self._disable_attestations and not self._options.multi_platform:
            result.check_manifest(metadata)
        result.check_media_types(metadata, self._options.media_types)
        for warning in self._cache_exports.warnings():
            logger.warning("%s", warning)
        return metadata

    def _metadata(self) -> result.Metadata:
        try:
            metadata: result.Metadata = json.loads(self._metadata_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BuildFailed(failure.no_metadata(error)) from error
        return metadata


def _environment(*, disable_attestations: bool) -> dict[str, str]:
    environment = {**os.environ, "DOCKER_CLI_HINTS": "false"}
    # Both variables save time. buildx does not copy the provenance into the metadata, and does not run git.
    environment.setdefault("BUILDX_METADATA_PROVENANCE", "disabled")
    if disable_attestations:
        environment["BUILDX_NO_DEFAULT_ATTESTATIONS"] = "1"
        if not environment.get("BUILDX_GIT_LABELS"):
            environment.setdefault("BUILDX_GIT_INFO", "false")
    return environment


def _remove_config_proxies(environment: dict[str, str], folder: Path) -> None:
    # The docker CLI has no flag for this, so it gets a copy of its configuration without the proxies.
    own = Path(environment.get("DOCKER_CONFIG") or Path.home() / ".docker").absolute()
    try:
        config = json.loads((own / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if not config.pop("proxies", None):
        return
    copy = folder / "docker"
    copy.mkdir(mode=0o700)
    for entry in own.iterdir():
        if entry.name != "config.json":
            (copy / entry.name).symlink_to(entry)
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    environment["DOCKER_CONFIG"] = str(copy)
