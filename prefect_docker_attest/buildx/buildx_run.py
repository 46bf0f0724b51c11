"""Runs one ``docker buildx build``: starts it, streams its output, and returns how it ended."""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prefect_docker_attest.buildx.builder import Builder
from prefect_docker_attest.buildx.cache import CacheErrors, ignored_caches
from prefect_docker_attest.buildx.explanations import cannot_start
from prefect_docker_attest.buildx.guard import Guard
from prefect_docker_attest.buildx.process import Command
from prefect_docker_attest.buildx.progress import ProgressTracker, RunningSteps
from prefect_docker_attest.errors import BuildFailed
from prefect_docker_attest.names import logger
from prefect_docker_attest.options import build_args
from prefect_docker_attest.options.mask import Mask
from prefect_docker_attest.options.table import arguments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prefect_docker_attest.options.request import BuildRequest
    from prefect_docker_attest.options.table import BuildxOptions

_SILENCE = 60.0  # seconds without output after which a line shows the running steps
_KEPT_LINES, _KEPT_CHARACTERS = 200, 2000  # the end of the output that is kept for the message of a failure


@contextlib.contextmanager
def running_build(request: BuildRequest, docker: Sequence[str]) -> Iterator[BuildxRun]:
    """Start ``docker buildx build``. Leaving the context stops it.

    Args:
        request: the build, with complete options
        docker: the docker CLI, with the flags that select its engine

    Raises:
        BuildFailed: docker cannot be started
    """
    options = request.options
    with request.stdin or contextlib.nullcontext(), contextlib.ExitStack() as cleanup:
        guard = cleanup.enter_context(Guard())
        folder = guard.folder
        environment = _environment(options)
        if request.stdin:
            # Older versions of buildx do not delete the temporary copy of standard input (docker/buildx#3117). It is
            # deleted with this folder.
            environment |= {"TMPDIR": str(folder), "TMP": str(folder)}
        if not request.config_proxies:
            _remove_config_proxies(environment, folder)
        for warning in ignored_caches(options, environment):
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
            stdin=request.stdin,
            idle_timeout=request.idle_timeout,
            made_progress=ProgressTracker(),
            silence=_SILENCE,
            edit=Mask(options.build_args).blocks,
            guard=guard,
        )
        try:
            cleanup.enter_context(command)
        except OSError as error:
            raise BuildFailed(cannot_start(error)) from error
        yield BuildxRun(command, metadata_file, quiet=options.quiet)


@dataclass(frozen=True)
class Outcome:
    """How a build ended.

    Attributes:
        returncode: exit code of docker; negative for a signal
        timed_out: whether it was stopped because it printed nothing new for too long
        running: names of the steps that ran at its end, or when it was stopped; ``""`` with ``quiet``
        lines: the last lines of its output, without their line ends
        builder: the builder that the output names; `None` if it names none, as a build that fails immediately
        metadata_file: path of the file to which buildx has written its metadata
        cache_errors: errors of caches
    """

    returncode: int
    timed_out: bool
    running: str
    lines: Sequence[str]
    builder: Builder | None
    metadata_file: Path
    cache_errors: CacheErrors


class BuildxRun:
    """A build that `running_build` has started."""

    def __init__(self, command: Command, metadata_file: Path, *, quiet: bool) -> None:
        self._command = command
        self._metadata_file = metadata_file
        self._quiet = quiet
        self._running = RunningSteps()
        self._tail: deque[str] = deque(maxlen=_KEPT_LINES)
        self._cache_errors = CacheErrors()
        self._builder: Builder | None = None

    def lines(self) -> Iterator[str]:
        """Yield the lines of the output when they are printed. Values of build arguments are replaced with names.

        A line of this package is added if nothing is printed for a minute, and after the error of a cache.
        """
        starts, comment = True, ""
        for line in self._command.lines():
            if not line:
                yield from self._silence()
                continue
            # A long line comes in pieces. Only the first piece is kept: another piece could start with "ERROR: ".
            if starts:
                self._tail.append(line[:_KEPT_CHARACTERS])
                if not self._command.timed_out:  # buildx ends all steps when it is stopped
                    self._running.read_line(line)
                comment = self._cache_errors.read_line(line)
                self._builder = self._builder or Builder.of_progress(line)
            starts = line.endswith("\n")
            yield line
            if starts and comment:
                yield comment

    def _silence(self) -> Iterator[str]:
        running = f"; running: {self._running}" if str(self._running) else ""
        text = f"No output for {_SILENCE:g} s{running}"
        if self._quiet:  # buildx prints no steps
            logger.info("%s", text)
        else:
            yield f"{text}\n"

    def wait(self) -> Outcome:
        """Return how the build ended. Call it after `lines` has ended."""
        returncode = self._command.wait()
        lines = [line.rstrip("\r\n") for line in self._tail]
        timed_out, running = self._command.timed_out, str(self._running)
        return Outcome(returncode, timed_out, running, lines, self._builder, self._metadata_file, self._cache_errors)


def _environment(options: BuildxOptions) -> dict[str, str]:
    environment = {**os.environ, "DOCKER_CLI_HINTS": "false"}
    # Both variables save time. buildx does not copy the provenance into the metadata, and does not run git.
    environment.setdefault("BUILDX_METADATA_PROVENANCE", "disabled")
    if options.attestations_disabled:
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
