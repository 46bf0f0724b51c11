"""The doctor's look at Docker: CLI, buildx and engine, and whether what they build is what was asked for."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import docker

from prefect_docker_attest import buildx, errors
from prefect_docker_attest.checks import Finding, first_line
from prefect_docker_attest.docker_py import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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


def questions(limit: int) -> dict[str, Callable[[], Any]]:
    """What docker-py, the docker CLI and the CLI that builds are asked, with `limit` seconds for each."""

    def ask(command: Sequence[str], *words: str) -> Callable[[], str]:
        return lambda: _ask(command, *words, limit=limit)

    return {
        "cli": ask(["docker"], "--version"),
        "buildx": ask(["docker"], "buildx", "version"),
        "cli engine": ask(["docker"], "info", "--format={{.ID}}"),
        "build engine": ask(cli(), "info", "--format={{.ID}}"),
        "builder": ask(cli(), "buildx", "inspect"),
        "engine": lambda: _engine_answers(limit),
    }


def findings(answers: Mapping[str, Any], *, disabled: bool) -> dict[str, Finding]:
    """Judge the answers to `questions`. Pure.

    Args:
        answers: by the question; an exception where there is none
        disabled: whether the setting is on
    """
    engine, builder, cli_engine = answers["engine"], answers["builder"], answers["cli engine"]
    judges: dict[str, Callable[[], Finding]] = {
        "docker CLI": lambda: _cli(answers["cli"]),
        "buildx": lambda: _buildx(answers["buildx"]),
        "engine": lambda: _engine(engine, cli_engine),
        "same engine": lambda: _same_engine(engine["ID"], cli_engine, answers["build engine"]),
        "image store": lambda: _image_store(engine),
        "builder": lambda: _builder(builder),
        "emulation": lambda: _emulation(platforms(builder), f"{engine['Os']}/{engine['Arch']}"),
        "cross-platform": lambda: _cross_platform(_image_store(engine), disabled=disabled),
    }
    needs = {**_NEEDS, "cross-platform": ("builder",) if disabled else ("engine",)}
    found: dict[str, Finding] = {}
    for name, judge in judges.items():
        missing = next((one for one in needs.get(name, ()) if found[one][0] in ("problem", "skipped")), None)
        found[name] = ("skipped", f"see {missing}", "") if missing else judge()
    if not disabled:
        # Only images that ask for buildx need these.
        for name in ("docker CLI", "buildx", "builder"):
            status, seen, advice = found[name]
            found[name] = ("warning" if status == "problem" else status, seen, advice)
    return found


def _ask(command: Sequence[str], *words: str, limit: int) -> str:
    try:
        answer = buildx.ask(command, *words, seconds=limit)
    except FileNotFoundError:
        raise _Refused("there is no `docker` on PATH") from None
    if answer.returncode != 0 or not answer.stdout.strip():
        raise _Refused(f"`{' '.join([*command, *words[:2]])}`: {first_line(answer.stderr or answer.stdout)}")
    return answer.stdout.strip()


def _engine_answers(limit: int) -> dict[str, Any]:
    client = docker.from_env(timeout=limit // 2)
    return {**client.version(), **client.info()}


def _cli(version: Any) -> Finding:
    if isinstance(version, Exception):
        return "problem", first_line(version), "Install the docker CLI, which brings or finds the buildx plugin."
    if "podman" in version.lower():
        return "problem", f"it is Podman's ({version})", "Put Docker's own `docker` first on PATH."
    return _tested(version.removeprefix("Docker version ").partition(",")[0])


def _tested(version: str) -> Finding:
    if int((re.match(r"\d+", version) or ["0"])[0]) >= _OLDEST_TESTED:
        return "ok", version, ""
    return "warning", f"{version} is older than any that was tested with ({_OLDEST_TESTED})", "Upgrade Docker."


def _buildx(answer: Any) -> Finding:
    if isinstance(answer, Exception):
        return "problem", first_line(answer), errors.INSTALL_BUILDX
    found = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", answer)
    if found and tuple(map(int, found.groups())) < errors.MINIMUM_BUILDX:
        oldest = ".".join(map(str, errors.MINIMUM_BUILDX))
        return "problem", f"{found[0]} is too old, {oldest} is needed", errors.INSTALL_BUILDX
    return "ok", found[0] if found else answer, ""


def _engine(engine: Any, cli_engine: Any) -> Finding:
    if isinstance(engine, Exception):
        advice = "Start Docker, or let DOCKER_HOST or `docker context use` name an engine that runs: `docker info`."
        if not isinstance(cli_engine, Exception):
            advice = f"The docker CLI's engine does answer: {_CLI_HOST}, or `pip install 'docker>=7.2'`."
        host = os.environ.get("DOCKER_HOST") or "its default engine"
        return "problem", f"docker-py gets no answer from {host}: {first_line(engine)}", advice
    if any("Podman" in part.get("Name", "") for part in engine.get("Components") or ()):
        advice = "Use Docker Engine, or a builder of its own: `docker buildx create --driver docker-container --use`."
        return "problem", f"Podman {engine.get('Version')}, which has no BuildKit", advice
    status, version, advice = _tested(engine["ServerVersion"])
    return status, f"{version}, {engine['Os']}/{engine['Arch']}, {engine['Name']}", advice


def _same_engine(own: str, cli_engine: Any, build_engine: Any) -> Finding:
    if cli_engine == own:
        return "ok", "the docker CLI and docker-py talk to the same one", ""
    seen = f"the docker CLI talks to another one ({cli_engine}) than docker-py ({own})"
    if isinstance(cli_engine, Exception):
        seen = f"the docker CLI gets no answer from its engine ({first_line(cli_engine)}), docker-py does"
    advice = f"{_CLI_HOST}, or `docker context use default`. From 7.2 on, docker-py follows the context."
    if build_engine == own:
        return "warning", f"{seen}; Prefect's images are in docker-py's", advice
    return "problem", f"{seen}; Prefect cannot push what buildx builds", advice


def _image_store(engine: Mapping[str, Any]) -> Finding:
    containerd = ["driver-type", "io.containerd.snapshotter.v1"] in (engine.get("DriverStatus") or [])
    return "ok", f"{'containerd' if containerd else 'graphdriver'}, {engine['Driver']}", ""


def _builder(answer: Any) -> Finding:
    if isinstance(answer, Exception):
        advice = "`docker buildx ls` lists the builders; BUILDX_BUILDER or `docker buildx use` names one."
        return "problem", first_line(answer), advice
    builder = f"{_fields(answer, 'Name')[0]}, driver {_fields(answer, 'Driver')[0]}"
    advice = "`docker buildx inspect --bootstrap` starts it; `docker buildx use default` builds in the engine itself."
    if trouble := _fields(answer, "Error"):
        return "problem", f"{builder}: {trouble[0]}", advice
    if "inactive" in _fields(answer, "Status"):
        return "warning", f"{builder}, not started", advice
    return "ok", builder, ""


def platforms(builder: str) -> list[str]:
    """The platforms in what ``docker buildx inspect`` prints, of all nodes."""
    return sorted({one.strip("* ") for line in _fields(builder, "Platforms") for one in line.split(",")})


def _fields(text: str, name: str) -> list[str]:
    return re.findall(rf"^{name}: +(\S.*)$", text, re.MULTILINE)


def _emulation(known: Sequence[str], native: str) -> Finding:
    others = {"linux/amd64": "linux/386", "linux/arm64": "linux/arm"}
    foreign = [one for one in known if not re.match(rf"({native}|{others.get(native, native)})(/|$)", one)]
    if foreign:
        return "ok", f"RUN steps work for {native} and {', '.join(foreign)}", ""
    if not known:
        return "skipped", "see builder", ""
    return (
        "warning",
        f"RUN steps work for {native} alone",
        "`docker run --privileged --rm tonistiigi/binfmt --install all` adds platforms.",
    )


def _cross_platform(image_store: Finding, *, disabled: bool) -> Finding:
    if disabled:
        return "ok", "built by buildx, with the layers of their own platform", ""
    if not image_store[1].startswith("containerd"):
        return "ok", "the classic builder gets them right with this image store", ""
    seen = (
        "CORRUPT while the setting is off: on the containerd image store, the classic builder puts this machine's "
        "base layers into an image for another platform. It can be pushed, and pulls of it end in `wrong diff id "
        "calculated on extraction`"
    )
    return "problem", seen, "Turn the setting on."
