"""Reads from a Dockerfile which platform the base image of the built stage has: ``FROM --platform=...``. Pure.

BuildKit builds such a stage for that platform, and still names the requested platform in the image's config.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect_docker_attest.platforms import NotAPlatformError, Platform

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DIRECTIVE = re.compile(r"#\s*(?P<name>\w+)\s*=\s*(?P<value>\S*)\s*$")
_FROM = re.compile(r"FROM\s+(?P<flags>(?:--\S+\s+)*)(?P<base>\S+)(?:\s+AS\s+(?P<name>\S+))?\s*$", re.IGNORECASE)
_PLATFORM = re.compile(r"--platform=(?P<value>\S+)", re.IGNORECASE)
_ARG = re.compile(r"ARG\s+(?P<declared>.+)$", re.IGNORECASE)
_DECLARED = re.compile(r"(?P<name>\w+)(?:=(?P<value>\"[^\"]*\"|'[^']*'|\S*))?")
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)(?:(?P<operator>:?[-+])(?P<word>[^}]*))?\}|(?P<plain>\w+))")
_WITH_HEREDOCS = re.compile(r"(RUN|COPY|ADD)\s", re.IGNORECASE)
_HEREDOC = re.compile(r"(?:^|\s)\d*<<-?([\"']?)(?P<word>[A-Za-z_]\w*)\1(?=\s|$)")
_SCRATCH = "scratch"


@dataclass(frozen=True)
class _Stage:
    base: str
    name: str
    platform: str


def pinned_platform(
    dockerfile: str, target: str | None, build_args: Mapping[str, str], requested: Platform, native: Platform | None
) -> Platform | None:
    """Return the platform that the Dockerfile sets for the built stage; `None` if it sets none, or an unknown one.

    Stages that are only copied from do not count.

    Args:
        dockerfile: text of the Dockerfile
        target: stage to build; `None` for the last one
        build_args: build arguments, which a platform can contain
        requested: platform of the build
        native: platform of the builder, ``$BUILDPLATFORM``; `None` if it is not known
    """
    variables = _variables(build_args, requested, native)
    stages = list(_stages(dockerfile, build_args, variables))
    stage = _built_stage(stages, target)
    while stage and not stage.platform:
        earlier = stages[: stages.index(stage)]
        stage = next((one for one in reversed(earlier) if one.name == stage.base.lower()), None)
    return _parsed(stage.platform) if stage and stage.base.lower() != _SCRATCH else None


def _variables(build_args: Mapping[str, str], requested: Platform, native: Platform | None) -> dict[str, str]:
    """Return the variables that BuildKit sets, unless build arguments set them."""
    variables = {"TARGETPLATFORM": str(requested), "BUILDPLATFORM": str(native or "")}
    if native:
        variables |= {"BUILDOS": native.os, "BUILDARCH": native.architecture}
    variables |= {"TARGETOS": requested.os, "TARGETARCH": requested.architecture}
    variables |= {name: value for name, value in build_args.items() if name in variables}
    return variables


def _built_stage(stages: list[_Stage], target: str | None) -> _Stage | None:
    if not target:
        return stages[-1] if stages else None
    if target.isdecimal():
        return stages[int(target)] if int(target) < len(stages) else None
    return next((stage for stage in stages if stage.name == target.lower()), None)


def _stages(dockerfile: str, build_args: Mapping[str, str], variables: dict[str, str]) -> Iterator[_Stage]:
    # Only arguments before the first FROM are valid in a FROM.
    known, is_first = dict(variables), True
    for line in _instructions(dockerfile):
        if is_first and (argument := _ARG.match(line)):
            known |= dict(_declared(argument["declared"], build_args, known))
        elif instruction := _FROM.match(line):
            is_first = False
            flag = _PLATFORM.search(instruction["flags"])
            platform = _expanded(flag["value"].strip("\"'"), known) if flag else ""
            yield _Stage(_expanded(instruction["base"], known), (instruction["name"] or "").lower(), platform)


def _declared(text: str, build_args: Mapping[str, str], known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for declared in _DECLARED.finditer(text):
        name, value = declared["name"], declared["value"]
        if value is not None or name in build_args:
            yield name, build_args.get(name, _expanded((value or "").strip("\"'"), known))


def _instructions(dockerfile: str) -> Iterator[str]:
    """Yield the instructions without comments, each in one line."""
    escape = _escape(dockerfile)
    parts: list[str] = []
    heredocs: list[str] = []
    for line in dockerfile.splitlines():
        text = line.strip()
        if heredocs:
            heredocs = heredocs[1:] if text == heredocs[0] else heredocs
            continue
        if not text or text.startswith("#"):
            continue
        parts.append(text.removesuffix(escape))
        if not text.endswith(escape):
            instruction = " ".join(parts).strip()
            if _WITH_HEREDOCS.match(instruction):
                heredocs = [heredoc["word"] for heredoc in _HEREDOC.finditer(instruction)]
            yield instruction
            parts = []
    if parts:
        yield " ".join(parts).strip()


def _escape(dockerfile: str) -> str:
    """Return the escape character, which a directive in the first comments can set."""
    for line in dockerfile.splitlines():
        directive = _DIRECTIVE.match(line.strip())
        if directive is None:
            break
        if directive["name"].lower() == "escape":
            return directive["value"]
    return "\\"


def _expanded(text: str, known: Mapping[str, str]) -> str:
    def value(variable: re.Match[str]) -> str:
        current = known.get(variable["braced"] or variable["plain"])
        operator = variable["operator"] or ""
        is_set = bool(current) if ":" in operator else current is not None
        if operator.endswith("+"):
            return variable["word"] if is_set else ""
        return (current or "") if is_set else variable["word"] or ""

    return _VARIABLE.sub(value, text)


def _parsed(text: str) -> Platform | None:
    try:
        platform = Platform.of_user(text)
    except NotAPlatformError:
        return None
    return platform if platform.is_complete else None
