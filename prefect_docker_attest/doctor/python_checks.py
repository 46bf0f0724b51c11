"""The doctor's look at this Python: is the package at work in it, what does its setting say, and why."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from prefect.settings import Settings  # before our own settings, which register there
from pydantic import ValidationError

from prefect_docker_attest import startup, switch
from prefect_docker_attest.checks import Finding, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_DISTRIBUTION = "prefect-docker-attest"
_PROBE = (
    "import sys; print(sys.prefix); "
    f"print(any(getattr(finder, '__name__', '') == {startup.SENTINEL!r} for finder in sys.meta_path))"
)
# Prefect's sources of settings by their class (prefect/settings/sources.py, since 3.1).
_SOURCES = {
    "EnvFilterSettingsSource": "the environment",
    "FilteredDotEnvSettingsSource": "the file .env here",
    "PrefectTomlConfigSettingsSource": "the file prefect.toml here",
    "PyprojectTomlConfigSettingsSource": "the file pyproject.toml here",
    "ProfileSettingsTomlLoader": "the profile",
}


def questions(limit: int) -> dict[str, Callable[[], Any]]:
    """What this interpreter, started anew, and the one that runs `prefect` are asked, with `limit` seconds for each."""
    asked: dict[str, Callable[[], Any]] = {"python": lambda: _probe(sys.executable, limit)}
    prefect = shutil.which("prefect")
    interpreter = interpreter_of(prefect) if prefect else None
    if interpreter:
        asked["prefect"] = lambda: _probe(interpreter, limit)
    return asked


def findings(answers: Mapping[str, Any]) -> tuple[bool, dict[str, Finding]]:
    """Whether the setting is on, and the findings by their check."""
    disabled, setting = _setting()
    return disabled, {
        "package": _package(answers["python"], disabled=disabled),
        "Prefect": _requirement("prefect"),
        "docker-py": _requirement("docker"),
        "prefect on PATH": _prefect_command(answers.get("prefect")),
        "setting": setting,
    }


def interpreter_of(script: str) -> str | None:
    """The interpreter that a console script starts, by its first lines; ``None`` where they do not tell."""
    if os.path.realpath(os.path.dirname(script)) == os.path.realpath(sysconfig.get_path("scripts")):
        return sys.executable
    try:
        with open(script, "rb") as file:
            first, _, rest = file.read(4096).decode(errors="replace").partition("\n")
    except OSError:
        return None
    words = first.removeprefix("#!").split() if first.startswith("#!") else []
    if words and os.path.basename(words[0]) == "env":
        words = [shutil.which(words[-1]) or ""]
    if words and os.path.basename(words[0]) == "sh" and rest.startswith("'''exec' "):
        # A path too long for the first line (pip's vendored distlib, scripts.py).
        words = shlex.split(rest.partition("\n")[0])[1:]
    return words[0] if words and "python" in os.path.basename(words[0]) else None


def _probe(interpreter: str, limit: int) -> tuple[str, bool]:
    """An interpreter's prefix, and whether this package's ``.pth`` file works in it."""
    answer = subprocess.run([interpreter, "-c", _PROBE], capture_output=True, text=True, timeout=limit, check=True)
    prefix, hooked = answer.stdout.splitlines()[-2:]
    return prefix, hooked == "True"


def _package(probed: Any, *, disabled: bool) -> Finding:
    here = f"{importlib.metadata.version(_DISTRIBUTION)} in {sys.executable}"
    # What cannot be changed shows when it is imported; prefect-docker, which takes seconds, uses these.
    for name in startup.HOOKS:
        with contextlib.suppress(Exception):  # not in this Prefect, or not with these settings
            if name.startswith("prefect."):
                importlib.import_module(name)
    if startup.failures:
        reasons = "; ".join(f"{name}: {first_line(error)}" for name, error in startup.failures.items())
        return "problem", f"{here} cannot change this Prefect ({reasons})", f"`pip install --upgrade {_DISTRIBUTION}`"
    if not startup.autoload():
        found = f"{here} leaves Prefect's builds alone: {startup.AUTOLOAD}={os.environ[startup.AUTOLOAD]}"
        return "problem" if disabled else "warning", found, f"`unset {startup.AUTOLOAD}`"
    docker_client = getattr(sys.modules.get(startup.DOCKERUTILS), "docker_client", None)
    if "docker" not in Settings.model_fields or not getattr(docker_client, "opens_buildx", False):
        return "problem", f"{here} was imported too late", f"Import {__package__} before prefect."
    if isinstance(probed, Exception) or not probed[1]:
        advice = (
            f"Install it by pip or uv into the environment that runs Prefect, or import {__package__} before prefect."
        )
        return "problem", f"{here} works in this process alone: Python reads no .pth file where it lies", advice
    return "ok", f"{here}, at work", ""


def _requirement(name: str) -> Finding:
    required = [Requirement(text) for text in importlib.metadata.requires(_DISTRIBUTION) or ()]
    supported = next(one.specifier for one in required if one.name == name)
    version = importlib.metadata.version(name)
    if supported.contains(version, prereleases=True):
        return "ok", version, ""
    return "problem", f"{version}, and {supported} is needed", f"`pip install '{name}{supported}'`"


def _prefect_command(probed: Any) -> Finding:
    command = shutil.which("prefect")
    if command is None:
        return "warning", "not on PATH", "Activate the environment before `prefect deploy`."
    if probed is None or isinstance(probed, Exception):
        advice = "`prefect config view --show-defaults` names the setting where the package is at work."
        return "warning", f"cannot tell which Python runs {command}", advice
    prefix, hooked = probed
    if prefix == sys.prefix:
        return "ok", f"{command} runs in this environment", ""
    if hooked:
        return "ok", f"{command} runs in another environment, {prefix}, with the package", ""
    advice = (
        f"Install {_DISTRIBUTION} there (`pipx inject prefect {_DISTRIBUTION}`), or use this environment's `prefect`."
    )
    return "problem", f"{command} runs in another environment, {prefix}, without the package", advice


def _setting() -> tuple[bool, Finding]:
    try:
        value, source = _provenance()
    except Exception as error:  # Prefect raises what comes, for a file of another form
        return False, (
            "problem",
            f"Prefect cannot read its settings: {first_line(error)}",
            "Mend prefect.toml or pyproject.toml here, or the profiles.",
        )
    try:
        disabled = switch.attestations_disabled()
    except ValidationError as error:
        # Not the error's own text, which quotes values: a key may be among them.
        reasons = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False)]
        found = f"Prefect refuses its settings ({'; '.join(reasons)}); {switch.NAME} is {value!r}, from {source}"
        return False, ("problem", found, "Set it to true or false there, or unset it.")
    if disabled:
        return True, ("ok", f"{switch.NAME} is on, from {source}", "")
    advice = f"`export {switch.NAME}=true`\nor `prefect config set {switch.NAME}=true`"
    return False, ("warning", f"{switch.NAME} is off, from {source}", advice)


def _provenance() -> tuple[Any, str]:
    """The setting as it is written, and where: Prefect's own sources are asked, in their order."""
    try:
        from prefect_docker_attest.settings import DockerSettings
    except Exception:  # a Prefect of unknown shape; `switch` then reads this alone
        return os.environ.get(switch.NAME), "the environment"
    # Of the four that it is given, Prefect makes two anew and leaves two empty.
    unused: Any = dict
    for source in DockerSettings.settings_customise_sources(DockerSettings, unused, unused, unused, unused):
        found = source()
        if "disable_attestations" in found:
            name = type(source).__name__
            profile = f" {_profile()}" if name == "ProfileSettingsTomlLoader" else ""
            return found["disable_attestations"], _SOURCES.get(name, name) + profile
    return False, "its default"


def _profile() -> str:
    try:
        from prefect.context import get_settings_context

        return repr(get_settings_context().profile.name)
    except ValidationError:  # of the settings, which are loaded with it
        return "in use"
