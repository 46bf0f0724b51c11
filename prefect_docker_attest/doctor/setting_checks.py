"""The doctor's check of the settings that are defaults of options: their values, and whether Docker supports them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect_docker_attest.build_settings import DEFAULTS as NAMES
from prefect_docker_attest.build_settings import BuildSettings as Defaults
from prefect_docker_attest.buildx.target import is_containerd_store as uses_containerd_store
from prefect_docker_attest.doctor.check import first_line, judge_all
from prefect_docker_attest.doctor.docker_checks import platforms
from prefect_docker_attest.names import SETTING, variable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect_docker_attest.doctor.check import Answers, Finding

_CONTAINERD = "Use the containerd image store (https://docs.docker.com/engine/storage/containerd/)"


@dataclass(frozen=True)
class BuildSettings:
    """The settings that are defaults of options.

    Attributes:
        defaults: values of the settings
        sources: sources of the settings that are set, by the names of the settings
        error: error message of a build with these values; ``""`` if they are valid
        decided: whether `SETTING` is set
    """

    defaults: Defaults
    sources: Mapping[str, str]
    error: str
    decided: bool


def ask() -> BuildSettings:
    """Read the settings. Prefect must have been imported."""
    from prefect_docker_attest.errors import OptionError
    from prefect_docker_attest.options import default_values
    from prefect_docker_attest.options.table import BuildxOptions
    from prefect_docker_attest.patches import settings_reader
    from prefect_docker_attest.platforms import Platform

    defaults = settings_reader.read_settings()
    error = ""
    try:
        native = Platform.of_text("linux/amd64")
        default_values.apply_defaults(defaults, BuildxOptions(context="/", tags=("image:tag",)), "", lambda: native)
    except OptionError as refused:
        error = str(refused)
    sources = {name: settings_reader.source_of(name)[1] for name in NAMES if getattr(defaults, name)}
    return BuildSettings(defaults, sources, error, settings_reader.source_of()[1] != "default")


def buildx_builds_all(answers: Answers, *, disabled: bool | None) -> bool | None:
    """Return whether the settings make buildx build every image; `None` if this is not known yet.

    Args:
        answers: answers to all questions of the doctor
        disabled: whether `SETTING` is on; `None` if this is not known yet
    """
    if disabled:
        return True
    found = answers.get("build settings")
    if disabled is None or found is None:
        return None
    return isinstance(found, BuildSettings) and bool(found.sources)


def findings(answers: Answers, *, disabled: bool | None) -> dict[str, Finding | None]:
    """Evaluate the result of `ask`. If none of the settings is set, there is no finding.

    Args:
        answers: answers to all questions of the doctor
        disabled: whether `SETTING` is on; `None` if this is not known yet
    """
    found = answers.get("build settings")
    if not isinstance(found, BuildSettings) or not found.sources:
        return {}
    return judge_all({"build settings": lambda: _judge(found, answers, disabled=bool(disabled))}, {})


def _judge(settings: BuildSettings, answers: Answers, *, disabled: bool) -> Finding:
    defaults = settings.defaults
    # The values of caches are not shown: they are long, and can contain secrets.
    shown = {"platform": f"={defaults.platform}", "media_types": f"={defaults.media_types}"}
    seen = ", ".join(f"{variable(name)}{shown.get(name, '')} ({source})" for name, source in settings.sources.items())
    if settings.error:
        return "problem", first_line(settings.error), "Correct or unset the setting: docs/settings.md."
    engine, builder = answers["engine"], answers["builder"]
    if isinstance(engine, BaseException) or isinstance(builder, BaseException):
        return "ok", seen, ""
    keeps_manifests = uses_containerd_store(engine)
    in_engine = "Driver:" not in builder or any(line.split() == ["Driver:", "docker"] for line in builder.splitlines())
    pushes = bool(defaults.push_from_builder) and not in_engine
    exports = [entry for entry in defaults.cache_to.split() if "type=inline" not in entry]
    if not keeps_manifests and not pushes and defaults.media_types == "oci":
        return "problem", f"{seen}: this image store pushes only Docker's media types", f"{_CONTAINERD}."
    if not keeps_manifests and in_engine and exports:
        return "problem", f"{seen}: this builder cannot write a cache", f"{_CONTAINERD}, or type=inline."
    if keeps_manifests and in_engine and not disabled and defaults.media_types == "docker":
        return "problem", f"{seen}: attestations need OCI media types", f"Set {SETTING}=true."
    if ((keeps_manifests and in_engine) or pushes) and not disabled and not settings.decided:
        return "warning", f"{seen}: buildx adds attestations to all images", f"Set {SETTING} to true or false."
    if defaults.push_from_builder and in_engine:
        advice = "Choose a builder outside the engine: docs/scaling-out.md."
        return "warning", f"{seen}: the engine's own builder loads images, and the engine pushes them", advice
    known = platforms(builder)
    if defaults.platform and known and not any(_runs(known_platform, defaults.platform) for known_platform in known):
        advice = "`docker run --privileged --rm tonistiigi/binfmt --install all` adds platforms."
        return "warning", f"{seen}: RUN steps need an emulator for it", advice
    return "ok", seen, ""


def _runs(known: str, wanted: str) -> bool:
    return f"{wanted}/".startswith(f"{known}/") or f"{known}/".startswith(f"{wanted}/")
