"""The doctor's checks of Docker: CLI, buildx, engine, builder, and cross-platform builds."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from prefect_docker_attest.buildx.builder import Builder
from prefect_docker_attest.doctor import buildx_folder
from prefect_docker_attest.doctor.check import Finding, NoAnswerError, SeeOther, first_line, is_caused_by
from prefect_docker_attest.doctor.docker_commands import API_VERSION, CommandError
from prefect_docker_attest.names import SELECT_BUILDER, variable

if TYPE_CHECKING:
    from prefect_docker_attest.doctor.answers import Answers
    from prefect_docker_attest.platforms import Platform

_OLDEST_TESTED = 26
_CLI_HOST = "`export DOCKER_HOST=$(docker context inspect --format '{{.Endpoints.docker.Host}}')`"
_NATIVE_TOO = {"amd64": "386", "arm64": "arm"}
"""Processors that also run programs of another architecture."""

_ALLOW = "If there is a proxy in front of the engine, it must allow GET /version and GET /info. Check `docker info`."
_PERMISSION = (
    "Your user must be in the group of the engine's socket: `sudo usermod -aG docker $USER`, and log in again."
)

_FOR_BUILDKIT = (
    'Several platforms, buildx-only options, build_backend="buildx" and most other settings need BuildKit. For these, '
    f"{SELECT_BUILDER}."
)

MORE_PLATFORMS = "`docker run --privileged --rm tonistiigi/binfmt --install all` adds platforms."
"""What to do if `RUN` steps need an emulator."""


def docker_cli(answers: Answers) -> Finding:
    """Check that the docker CLI is installed and new enough, or that Podman's own builder builds without it."""
    found = _docker_cli(answers)
    return _not_needed(found) if found.status == "problem" and answers.podman_builds() else found


def _docker_cli(answers: Answers) -> Finding:
    try:
        version = first_line(answers.cli.result())
    except CommandError as error:
        return Finding("problem", str(error), "Install the docker CLI and its buildx plugin.")
    if "podman" in version.lower():
        return Finding(
            "problem", f"`docker` is Podman's command ({version})", "Put Docker's own `docker` first on PATH."
        )
    version = version.removeprefix("Docker version ").partition(",")[0]
    if refused := answers.api_version.result():
        found = f"{version}, but the engine refuses {API_VERSION}={os.environ[API_VERSION]}: {refused}"
        return Finding("problem", found, f"`unset {API_VERSION}`: docker then uses a version that the engine supports.")
    return _tested(version)


def _tested(version: str) -> Finding:
    if int((re.match(r"\d+", version) or ["0"])[0]) >= _OLDEST_TESTED:
        return Finding("ok", version)
    found = f"{version} is older than the oldest tested version ({_OLDEST_TESTED})"
    return Finding("warning", found, "Upgrade Docker.")


def _not_needed(found: Finding) -> Finding:
    return Finding("ok", f"Podman's own builder does not need it: {found.found}")


def buildx(answers: Answers) -> Finding:
    """Check that buildx is installed and new enough, or that Podman's own builder builds without it."""
    answers.require("docker CLI")
    answers.require("docker-py")  # it is imported with the names in `_buildx`
    found = _buildx(answers)
    return _not_needed(found) if found.status == "problem" and answers.podman_builds() else found


def _buildx(answers: Answers) -> Finding:
    from prefect_docker_attest.buildx.docker_cli import INSTALL_BUILDX, MINIMUM_BUILDX, format_version, parse_version

    trouble = answers.folder.result()
    try:
        output = answers.buildx.result()
    except CommandError as error:
        if trouble:  # the docker CLI looks for its plugins in the same place
            advice = f"Set DOCKER_CONFIG to a writable folder. {INSTALL_BUILDX}"
            return Finding("problem", f"{str(error).rstrip('.')}; {trouble}", advice)
        return Finding("problem", str(error), INSTALL_BUILDX)
    version = parse_version(output)
    if version is None:
        found = f"`docker buildx version` prints no version, but {first_line(output)!r}"
        return Finding("problem", found, INSTALL_BUILDX)
    if version < MINIMUM_BUILDX:
        found = f"{format_version(version)} is too old: {format_version(MINIMUM_BUILDX)} or newer is needed"
        return Finding("problem", found, INSTALL_BUILDX)
    if trouble:
        return Finding("problem", f"{format_version(version)}, but {trouble}", buildx_folder.ADVICE)
    return Finding("ok", format_version(version))


def engine(answers: Answers) -> Finding:
    """Check that docker-py's engine answers, is Docker, and is new enough."""
    answers.require("docker-py")
    from requests import HTTPError

    from prefect_docker_attest.images.engine_api import InvalidResponseError

    host = os.environ.get("DOCKER_HOST") or "its default engine"
    try:
        found = answers.engine.result()
    except NoAnswerError as late:
        advice = (
            "Restart Docker, or select another engine with DOCKER_HOST or `docker context use`. If it is only slow, "
        )
        return Finding("problem", f"docker-py gets no answer from {host}: {late}", f"{advice}try {answers.more_time}.")
    except InvalidResponseError as error:
        return Finding("problem", f"{host} is not a Docker Engine: {error}", _other_engine(answers))
    except HTTPError as error:
        return Finding("problem", f"{host} refuses a request: {first_line(error)}", _ALLOW)
    except Exception as error:  # requests and docker-py raise many
        advice = _PERMISSION if is_caused_by(error, PermissionError) else _other_engine(answers)
        return Finding("problem", f"docker-py gets no answer from {host}: {first_line(error)}", advice)
    if found.podman:
        seen = f"Podman {found.podman}, {found.platform}, {found.name}"
        if not answers.podman_builds():
            return Finding("ok", seen)
        return Finding("ok", f"{seen}: its own builder builds images, without attestations", _FOR_BUILDKIT)
    tested = _tested(found.version)
    return Finding(tested.status, f"{tested.found}, {found.platform}, {found.name}", tested.advice)


def _other_engine(answers: Answers) -> str:
    try:
        answers.cli_engine.result()
    except (CommandError, NoAnswerError):
        return "Start Docker, or select a running engine with DOCKER_HOST or `docker context use`: `docker info`."
    return f"The docker CLI's engine answers. Use it: {_CLI_HOST}, or `pip install 'docker>=7.2'`."


def same_engine(answers: Answers) -> Finding | None:
    """Check that the docker CLI and docker-py use the same engine; `None` if this cannot be seen."""
    answers.require("docker CLI")
    answers.require("engine")
    if answers.podman_builds():
        return Finding("ok", "docker-py builds and pushes in Podman, without the docker CLI")
    if answers.engine.result().podman:  # it gives each request another ID
        return None
    own = answers.engine.result().identifier
    advice = f"{_CLI_HOST}, or `docker context use default`. docker-py uses contexts since 7.2."
    try:
        of_cli = answers.cli_engine.result()
        seen = f"the docker CLI uses another engine ({of_cli}) than docker-py ({own})"
    except (CommandError, NoAnswerError) as error:
        of_cli = ""
        seen = f"the docker CLI gets no answer from its engine ({error}), but docker-py does"
        if isinstance(error, NoAnswerError):
            advice = f"`docker context ls` shows its engine. If it is only slow, try {answers.more_time}."
    if of_cli == own:
        return Finding("ok", "the docker CLI and docker-py use the same engine")
    if _builds_in(answers, own):
        return Finding("warning", f"{seen}; Prefect's images are in docker-py's engine", advice)
    return Finding("problem", f"{seen}; Prefect cannot push the images that buildx builds", advice)


def _builds_in(answers: Answers, identifier: str) -> bool:
    """Whether buildx builds in this engine. If docker gives no answer in time, that is not known: it is an error."""
    try:
        return answers.build_engine.result() == identifier
    except CommandError:
        return False


def image_store(answers: Answers) -> Finding:
    """Show the engine's image store."""
    answers.require("engine")
    found = answers.engine.result()
    if found.podman:
        return Finding("ok", f"Podman's, {found.driver}")
    return Finding("ok", f"{'containerd' if found.uses_containerd_store else 'graphdriver'}, {found.driver}")


def builder(answers: Answers) -> Finding:
    """Check that the builder that buildx uses is running."""
    answers.require("buildx")
    answers.require("engine")
    if answers.podman_builds():
        return Finding("ok", "Podman's own, Buildah")
    from prefect_docker_attest.buildx.docker_cli import INSTALL_BUILDX

    try:
        output = answers.builder.result()
    except CommandError as error:
        advice = "`docker buildx ls` lists the builders. BUILDX_BUILDER or `docker buildx use` selects one."
        return Finding("problem", str(error), advice)
    found = Builder.parse(output)
    if found is None:
        seen = f"`docker buildx inspect` prints no builder and driver, but {first_line(output)!r}"
        return Finding("problem", seen, INSTALL_BUILDX)
    seen = f"{found.name}, driver {found.driver}"
    advice = "`docker buildx inspect --bootstrap` starts it. `docker buildx use default` selects the engine's builder."
    if found.is_engine and "context deadline exceeded" in found.error:
        # buildx has a limit of its own. The engine, which is the builder, has answered docker-py.
        return Finding("unknown", f"{seen}, not checked: `docker buildx inspect` stopped waiting for the engine")
    if found.error:
        return Finding("problem", f"{seen}: {found.error}", advice)
    if not found.is_running:
        return Finding("warning", f"{seen}, not started", advice)
    if found.is_engine:
        return Finding("ok", seen)
    return _outside_builder(answers, found, f"{seen}, {', '.join(found.endpoints)}")


def _outside_builder(answers: Answers, found: Builder, seen: str) -> Finding:
    """Return a finding about a builder outside the engine: its platforms, and how its images reach their registry."""
    # Variants such as linux/amd64/v2 are left out if the list has linux/amd64.
    names = [str(known) for known in found.platforms if not known.variant or known.processor not in found.platforms]
    seen = f"{seen}, for {', '.join(names) or 'unknown platforms'}"
    settings, switch = answers.settings(), variable("push_from_builder")
    if settings is None:
        return Finding("ok", seen)
    if settings.push_from_builder:
        return Finding("ok", f"{seen}; it pushes images to their registry itself ({switch})")
    seen += "; images are loaded into the Docker Engine and pushed from there: twice over this machine's link"
    return Finding("ok", seen, f"`export {switch}=true`: the builder pushes images itself.")


def builder_of(answers: Answers) -> Builder:
    """Return the builder, after the check `builder` has found no problem."""
    found = Builder.parse(answers.builder.result())
    if found is None:
        raise SeeOther("builder")
    return found


def emulation(answers: Answers) -> Finding | None:
    """Show the platforms that ``RUN`` steps work for; `None` for Podman's own builder, which does not list them."""
    answers.require("builder")
    if answers.podman_builds():
        return None
    known, machine = builder_of(answers).platforms, answers.engine.result().platform
    foreign = [str(platform) for platform in known if not native(platform, machine)]
    if foreign:
        return Finding("ok", f"RUN steps work for {machine} and {', '.join(foreign)}")
    if not known:
        raise SeeOther("builder")
    return Finding("warning", f"RUN steps work only for {machine}", MORE_PLATFORMS)


def native(platform: Platform, machine: Platform) -> bool:
    """Whether a machine runs programs for a platform without an emulator."""
    architectures = (machine.architecture, _NATIVE_TOO.get(machine.architecture))
    return platform.os == machine.os and platform.architecture in architectures


def cross_platform(answers: Answers) -> Finding:
    """Check whether images for another platform would be corrupt."""
    answers.require("engine")
    buildx_builds_all = answers.buildx_builds_all()
    if buildx_builds_all is None:
        answers.require("setting")
        raise SeeOther("setting", "unknown")
    if answers.podman_builds() or (answers.engine.result().podman and not buildx_builds_all):
        return Finding("ok", "Podman's own builder builds images with the layers of their own platform")
    if buildx_builds_all:
        answers.require("package")
        answers.require("builder")
        return Finding("ok", "buildx builds images with the layers of their own platform")
    if not answers.engine.result().uses_containerd_store:
        return Finding("ok", "with this image store, the classic builder builds images for other platforms correctly")
    seen = (
        "CORRUPT while the setting is off: on the containerd image store, the classic builder puts this machine's "
        "base layers into an image for another platform. The image can be pushed, but clusters cannot pull it (`wrong "
        "diff id calculated on extraction`)"
    )
    return Finding("problem", seen, "Turn the setting on.")
