"""Run ``docker buildx build``: its output as it comes, then what it says it built."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from prefect_docker_attest import build_args, errors, manifest
from prefect_docker_attest.options import arguments
from prefect_docker_attest.process import Command
from prefect_docker_attest.progress import News

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from prefect_docker_attest.options import BuildxOptions

logger = logging.getLogger("prefect_docker_attest")

Metadata = dict[str, Any]
"""What buildx writes to ``--metadata-file``."""

_KEPT_LINES, _KEPT_CHARACTERS = 200, 2000  # of the output, to explain a failure with


def without_attestations(options: BuildxOptions) -> BuildxOptions:
    """The same build with attestations off; warns of those that the image asked for."""
    asked = {"provenance": options.provenance, "sbom": options.sbom, "attest": ",".join(options.attest)}
    overruled = [f"{name}={value}" for name, value in asked.items() if value not in (None, "", "false")]
    if overruled:
        logger.warning(
            "PREFECT_DOCKER_DISABLE_ATTESTATIONS overrules %s of this image: it is built without attestations.",
            " and ".join(overruled),
        )
    return replace(options, provenance="false", sbom="false", attest=())


class Build:
    """One run of ``docker buildx build``.

    Args:
        options: what to build
        attestations: whether the image may carry any
        docker: the docker CLI, with the flags that name its engine
        stdin: a file with the context, where that is ``-``
        silence_limit: seconds without output after which the build is stopped
        config_proxies: whether the docker CLI's configured proxies become build arguments

    Attributes:
        metadata: what buildx says of the image, once the output has ended
    """

    def __init__(
        self,
        options: BuildxOptions,
        *,
        attestations: bool,
        docker: Sequence[str] = ("docker",),
        stdin: IO[bytes] | None = None,
        silence_limit: float | None = None,
        config_proxies: bool = True,
    ) -> None:
        self._options = options
        self._attestations = attestations
        self._docker = docker
        self._stdin = stdin
        self._silence_limit = silence_limit
        self._config_proxies = config_proxies
        self.metadata: Metadata = {}

    def output(self) -> Generator[str, None, None]:
        """Build, and hand on each line of output as it comes. Closing it stops the build.

        Raises:
            BuildFailed: the build failed, did not start, was silent too long, or made attestations against the wish
        """
        with contextlib.ExitStack() as cleanup:
            folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="prefect-docker-attest-build-")))
            metadata_file = folder / "metadata.json"
            try:
                command = cleanup.enter_context(self._command(folder, metadata_file))
            except OSError as error:
                raise errors.BuildFailed(_cannot_start(error)) from error
            tail: deque[str] = deque(maxlen=_KEPT_LINES)
            mask = build_args.Mask(self._options.build_args)
            starts = True
            for line in map(mask, command.lines()):
                # What follows the first piece of a long line may begin with anything, as with "ERROR: ".
                if starts:
                    tail.append(line[:_KEPT_CHARACTERS])
                starts = line.endswith("\n")
                yield line
            self._check(command.wait(), [line.rstrip("\r\n") for line in tail], silent=command.silent)
            self.metadata = json.loads(metadata_file.read_text(encoding="utf-8"))
        media_type = self.metadata.get("containerimage.descriptor", {}).get("mediaType", "")
        if not self._attestations and not self._options.multi_platform and manifest.is_index(media_type):
            raise errors.BuildFailed(
                f"The image was built with attestations, although they are off: it is an index ({media_type}), not one "
                "manifest. Check `docker buildx version` (0.10.2 or newer is needed) and `docker buildx inspect`."
            )

    def _command(self, folder: Path, metadata_file: Path) -> Command:
        environment = _environment(attestations=self._attestations)
        if self._stdin:
            # Older buildx leaves behind what it makes of standard input (docker/buildx#3117): it goes with the folder.
            environment |= {"TMPDIR": str(folder), "TMP": str(folder)}
        if not self._config_proxies:
            _leave_out_proxies(environment, folder)
        prepared = build_args.prepare(self._options.build_args, environment)
        if prepared.exposed:
            logger.warning(
                "The values of the build arguments %s are visible in the build's command line, since tools that it "
                "starts would read them in its environment. Give credentials as secrets=['id=NAME,env=NAME'] instead.",
                ", ".join(prepared.exposed),
            )
        return Command(
            [*self._docker, "buildx", "build", *arguments(self._options, prepared.flags, str(metadata_file))],
            environment={**environment, **prepared.environment},
            stdin=self._stdin,
            silence_limit=self._silence_limit,
            news=News(),
        )

    def _check(self, returncode: int, lines: Sequence[str], *, silent: bool) -> None:
        if silent:
            limit = f"{self._silence_limit:g}"
            raise errors.BuildFailed(
                f"The build was stopped: it printed nothing new for {limit} seconds (timeout={limit}). "
                "Give a larger timeout, or none."
            )
        if returncode != 0:
            raise errors.BuildFailed(
                _buildx_trouble(self._docker, lines)
                or errors.failure_text(returncode, lines, self._options.file or "Dockerfile"),
                errors.failed_output(lines),
            )


def ask(docker: Sequence[str], *words: str, seconds: float = 10) -> subprocess.CompletedProcess[str]:
    """A short question to the docker CLI; an answer that does not come in time is exit code 124."""
    try:
        return subprocess.run(
            [*docker, *words],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 124, "", f"no answer within {seconds:g} seconds")


def buildx_version(docker: Sequence[str] = ("docker",)) -> tuple[int, ...] | None:
    """The version of the buildx plugin, ``(0, 29, 1)``, or ``None`` where the docker CLI has none."""
    answer = ask(docker, "buildx", "version")
    found = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", answer.stdout)
    return tuple(map(int, found.groups())) if answer.returncode == 0 and found else None


def image_is_elsewhere(docker: Sequence[str], engine: str, digests: Sequence[str]) -> str:
    """The message for an image that was built, yet is not in the engine that it was built for."""
    inspected = ask(docker, "buildx", "inspect").stdout
    builder = ", ".join(
        " ".join(line.split()) for line in inspected.splitlines() if line.startswith(("Name:", "Driver:"))
    )
    return (
        f"The build succeeded, but the Docker Engine of {engine} does not hold its image "
        f"({', '.join(digests) or 'no id'}). The builder is [{builder}]. Use one that loads into this engine "
        "(`docker buildx use default`, or unset BUILDX_BUILDER), or let DOCKER_HOST name the engine that the docker "
        "CLI uses (`docker context ls`)."
    )


def _environment(*, attestations: bool) -> dict[str, str]:
    environment = {**os.environ, "DOCKER_CLI_HINTS": "false"}
    # Nobody reads these two, and both take time: buildx copies the provenance into the metadata, and asks git for it.
    environment.setdefault("BUILDX_METADATA_PROVENANCE", "disabled")
    if not attestations:
        environment["BUILDX_NO_DEFAULT_ATTESTATIONS"] = "1"
        if not environment.get("BUILDX_GIT_LABELS"):
            environment.setdefault("BUILDX_GIT_INFO", "false")
    return environment


def _leave_out_proxies(environment: dict[str, str], folder: Path) -> None:
    # The docker CLI has no flag for it: it gets its own configuration once more, less the proxies.
    own = Path(environment.get("DOCKER_CONFIG") or Path.home() / ".docker")
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


def _cannot_start(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        where = os.environ.get("PATH", "")
        return (
            f"The `docker` command was not found (PATH={where}). With PREFECT_DOCKER_DISABLE_ATTESTATIONS, images are "
            "built by `docker buildx build`: install the docker CLI and its buildx plugin, then check them with "
            "`docker buildx version`."
        )
    if error.errno == errno.E2BIG:
        return (
            "The command line or a build argument is longer than this system allows (Linux: 128 KiB for one value). "
            "Put the value into a file in the build context, or give it as secrets=['id=NAME,src=FILE']."
        )
    return f"`{shutil.which('docker')} buildx build` cannot be started: {error}. Check it with `docker buildx version`."


def _buildx_trouble(docker: Sequence[str], lines: Sequence[str]) -> str | None:
    """Whether the build failed for want of a usable buildx: asked only now, since asking costs 60 ms."""
    if any(line.startswith(("#", "ERROR: failed to")) for line in lines):
        return None
    version = buildx_version(docker)
    if version is None:
        said = ask(docker, "buildx", "version")
        reason = (said.stderr or said.stdout).strip().splitlines()
        if not reason:
            return None
        return (
            f"The docker CLI has no usable buildx plugin: `docker buildx version` says {reason[0]!r}. "
            f"{errors.INSTALL_BUILDX}"
        )
    if version < errors.MINIMUM_BUILDX:
        seen, needed = (".".join(map(str, one)) for one in (version, errors.MINIMUM_BUILDX))
        return f"The buildx plugin is too old: {seen}, and {needed} or newer is needed. {errors.INSTALL_BUILDX}"
    return None


def log_output_of(failure: errors.BuildFailed) -> None:
    """Show what the failing step printed, for those whose progress goes nowhere (Prefect's console has it)."""
    if failure.output:
        logger.error("Output of the step that failed:\n%s", failure.output)
