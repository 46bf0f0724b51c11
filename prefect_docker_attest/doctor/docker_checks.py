"""The doctor's checks of Docker: CLI, buildx, engine, builder, and cross-platform builds."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.buildx import docker_cli
from prefect_docker_attest.buildx.target import is_containerd_store as uses_containerd_store
from prefect_docker_attest.buildx.target import podman_version as is_podman
from prefect_docker_attest.doctor.check import Pending, first_line, judge_all
from prefect_docker_attest.doctor.engine_answers import engine_answers
from prefect_docker_attest.images.engine_api import InvalidResponseError
from prefect_docker_attest.names import variable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from prefect_docker_attest.doctor.check import Finding

_OLDEST_TESTED = 26
_CLI_HOST = "`export DOCKER_HOST=$(docker context inspect --format '{{.Endpoints.docker.Host}}')`"
_NEEDS = {
    "buildx": ("docker CLI",),
    "same engine": ("docker CLI", "engine"),
    "image store": ("engine",),
    "builder": ("buildx", "engine"),
    "emulation": ("builder",),
}


class _Refused(Exception):
    pass


def questions(limit: int) -> list[dict[str, Callable[[], Any]]]:
    """Return the questions. Each is a group of its own, so that all are asked at the same time.

    The engine that builds can differ from that of the docker CLI (see `docker_cli.docker_command`).

    Args:
        limit: maximum time for each answer, in seconds
    """

    def ask(command: Sequence[str], *words: str) -> Callable[[], str]:
        return lambda: _ask(command, *words, limit=limit)

    asked: dict[str, Callable[[], Any]] = {
        "cli": ask(docker_cli.DOCKER, "--version"),
        "buildx": ask(docker_cli.DOCKER, "buildx", "version"),
        "cli engine": ask(docker_cli.DOCKER, "info", "--format={{.ID}}"),
        "build engine": ask(docker_cli.docker_command(), "info", "--format={{.ID}}"),
        "builder": ask(docker_cli.docker_command(), "buildx", "inspect"),
        "engine": lambda: engine_answers(limit),
    }
    return [{name: question} for name, question in asked.items()]


def findings(answers: Mapping[str, Any], *, buildx: bool | None) -> dict[str, Finding | None]:
    """Evaluate the answers to `questions`. Pure.

    Args:
        answers: answers by question; the answer of a question that failed is its exception
        buildx: whether the settings make buildx build every image; `None` if this is not known yet

    Returns:
        findings by check; `None` for a check whose answers have not arrived yet
    """
    judges: dict[str, Callable[[], Finding]] = {
        "docker CLI": lambda: _cli(answers["cli"]),
        "buildx": lambda: _buildx(answers["buildx"]),
        "engine": lambda: _engine(answers["engine"], answers["cli engine"]),
        "same engine": lambda: _same_engine(answers["engine"]["ID"], answers["cli engine"], answers["build engine"]),
        "image store": lambda: _image_store(answers["engine"]),
        "builder": lambda: _builder(answers["builder"], answers["build settings"]),
        "emulation": lambda: _emulation(platforms(answers["builder"]), "{Os}/{Arch}".format(**answers["engine"])),
        "cross-platform": lambda: _cross_platform(answers["engine"], buildx=buildx),
    }
    found = judge_all(judges, {**_NEEDS, "cross-platform": ("builder",) if buildx else ("engine",)})
    if buildx is False:
        # With all settings off, only images with buildx-only options need these.
        for name in ("docker CLI", "buildx", "builder"):
            finding = found[name]
            if finding and finding[0] == "problem":
                found[name] = "warning", *finding[1:]
    return found


def _ask(command: Sequence[str], *words: str, limit: int) -> str:
    try:
        answer = docker_cli.run_docker(words, limit, docker=command)
    except FileNotFoundError:
        raise _Refused("the command `docker` is not on PATH") from None
    if answer.returncode != 0 or not answer.stdout.strip():
        raise _Refused(f"`{' '.join([*command, *words[:2]])}`: {first_line(answer.stderr or answer.stdout)}")
    return answer.stdout.strip()


def _cli(version: Any) -> Finding:
    if isinstance(version, BaseException):
        return "problem", first_line(version), "Install the docker CLI and its buildx plugin."
    version = first_line(version)
    if "podman" in version.lower():
        return "problem", f"`docker` is Podman's command ({version})", "Put Docker's own `docker` first on PATH."
    return _tested(version.removeprefix("Docker version ").partition(",")[0])


def _tested(version: str) -> Finding:
    if int((re.match(r"\d+", version) or ["0"])[0]) >= _OLDEST_TESTED:
        return "ok", version, ""
    return "warning", f"{version} is older than the oldest tested version ({_OLDEST_TESTED})", "Upgrade Docker."


def _buildx(answer: Any) -> Finding:
    if isinstance(answer, BaseException):
        return "problem", first_line(answer), docker_cli.INSTALL_BUILDX
    version = docker_cli.parse_version(answer)
    if version is None:
        found = f"`docker buildx version` prints no version, but {first_line(answer)!r}"
        return "problem", found, docker_cli.INSTALL_BUILDX
    seen = docker_cli.format_version(version)
    if version < docker_cli.MINIMUM_BUILDX:
        oldest = docker_cli.format_version(docker_cli.MINIMUM_BUILDX)
        return "problem", f"{seen} is too old: {oldest} or newer is needed", docker_cli.INSTALL_BUILDX
    return "ok", seen, ""


def _engine(engine: Any, cli_engine: Any) -> Finding:
    if isinstance(engine, BaseException):
        advice = "Start Docker, or select a running engine with DOCKER_HOST or `docker context use`: `docker info`."
        if not isinstance(cli_engine, BaseException):
            advice = f"The docker CLI's engine answers. Use it: {_CLI_HOST}, or `pip install 'docker>=7.2'`."
        host = os.environ.get("DOCKER_HOST") or "its default engine"
        if isinstance(engine, InvalidResponseError):
            return "problem", f"{host} is not a Docker Engine: {engine}", advice
        return "problem", f"docker-py gets no answer from {host}: {first_line(engine)}", advice
    if is_podman(engine):
        advice = "Use Docker Engine, or a separate builder: `docker buildx create --driver docker-container --use`."
        return "problem", f"Podman {engine.get('Version')}, which has no BuildKit", advice
    status, version, advice = _tested(engine["ServerVersion"])
    return status, f"{version}, {engine['Os']}/{engine['Arch']}, {engine['Name']}", advice


def _same_engine(own: str, cli_engine: Any, build_engine: Any) -> Finding:
    if cli_engine == own:
        return "ok", "the docker CLI and docker-py use the same engine", ""
    seen = f"the docker CLI uses another engine ({cli_engine}) than docker-py ({own})"
    if isinstance(cli_engine, BaseException):
        seen = f"the docker CLI gets no answer from its engine ({first_line(cli_engine)}), but docker-py does"
    advice = f"{_CLI_HOST}, or `docker context use default`. docker-py uses contexts since 7.2."
    if build_engine == own:
        return "warning", f"{seen}; Prefect's images are in docker-py's engine", advice
    return "problem", f"{seen}; Prefect cannot push the images that buildx builds", advice


def _image_store(engine: Mapping[str, Any]) -> Finding:
    store = "containerd" if uses_containerd_store(engine) else "graphdriver"
    return "ok", f"{store}, {engine['Driver']}", ""


def _builder(answer: Any, settings: Any) -> Finding:
    if isinstance(answer, BaseException):
        advice = "`docker buildx ls` lists the builders. BUILDX_BUILDER or `docker buildx use` selects one."
        return "problem", first_line(answer), advice
    named = _fields(answer, "Name"), _fields(answer, "Driver")
    if not all(named):
        found = f"`docker buildx inspect` prints no builder and driver, but {first_line(answer)!r}"
        return "problem", found, docker_cli.INSTALL_BUILDX
    builder = f"{named[0][0]}, driver {named[1][0]}"
    advice = "`docker buildx inspect --bootstrap` starts it. `docker buildx use default` selects the engine's builder."
    if trouble := _fields(answer, "Error"):
        return "problem", f"{builder}: {trouble[0]}", advice
    if "inactive" in _fields(answer, "Status"):
        return "warning", f"{builder}, not started", advice
    if named[1][0] == "docker":
        return "ok", builder, ""
    pushes = bool(getattr(getattr(settings, "defaults", None), "push_from_builder", ""))
    return _outside_builder(f"{builder}, {', '.join(_fields(answer, 'Endpoint'))}", platforms(answer), pushes=pushes)


def _outside_builder(builder: str, known: Sequence[str], *, pushes: bool) -> Finding:
    """Return a finding about a builder outside the engine: its platforms, and how its images reach their registry."""
    setting = variable("push_from_builder")
    # Variants such as linux/amd64/v2 are left out if the list has linux/amd64.
    names = [name for name in known if name.rpartition("/")[0] not in known]
    seen = f"{builder}, for {', '.join(names) or 'unknown platforms'}"
    if pushes:
        return "ok", f"{seen}; it pushes images to their registry itself ({setting})", ""
    return (
        "ok",
        f"{seen}; images are loaded into the Docker Engine and pushed from there: twice over this machine's link",
        f"`export {setting}=true`: the builder pushes images itself.",
    )


def platforms(builder: str) -> list[str]:
    """Return the platforms of all nodes in the output of ``docker buildx inspect``."""
    return sorted({name.strip("* ") for line in _fields(builder, "Platforms") for name in line.split(",")})


def _fields(text: str, name: str) -> list[str]:
    return re.findall(rf"^{name}: +(\S.*)$", text, re.MULTILINE)


def _emulation(known: Sequence[str], native: str) -> Finding:
    others = {"linux/amd64": "linux/386", "linux/arm64": "linux/arm"}
    foreign = [name for name in known if not re.match(rf"({native}|{others.get(native, native)})(/|$)", name)]
    if foreign:
        return "ok", f"RUN steps work for {native} and {', '.join(foreign)}", ""
    if not known:
        return "skipped", "see builder", ""
    return (
        "warning",
        f"RUN steps work only for {native}",
        "`docker run --privileged --rm tonistiigi/binfmt --install all` adds platforms.",
    )


def _cross_platform(answer: Mapping[str, Any], *, buildx: bool | None) -> Finding:
    if buildx is None:
        raise Pending
    if buildx:
        return "ok", "buildx builds images with the layers of their own platform", ""
    if not uses_containerd_store(answer):
        return "ok", "with this image store, the classic builder builds images for other platforms correctly", ""
    seen = (
        "CORRUPT while the setting is off: on the containerd image store, the classic builder puts this machine's "
        "base layers into an image for another platform. The image can be pushed, but clusters cannot pull it (`wrong "
        "diff id calculated on extraction`)"
    )
    return "problem", seen, "Turn the setting on."
