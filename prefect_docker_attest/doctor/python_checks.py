"""The doctor's checks of this Python: the package, Prefect, docker-py and the setting.

Prefect is imported only inside the questions, because its import can block if a settings file never answers.
"""

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

from prefect_docker_attest import startup
from prefect_docker_attest.doctor import setting_checks
from prefect_docker_attest.doctor.activation import Activation, loaded_as_plugin, probe
from prefect_docker_attest.doctor.check import Pending, first_line, judge_all
from prefect_docker_attest.doctor.setting_files import UnansweredError, check_answers
from prefect_docker_attest.names import SETTING

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect_docker_attest.doctor.check import Answers, Finding

_DISTRIBUTION = "prefect-docker-attest"
_TOO_LATE = "imported too late"


def questions(limit: int) -> list[dict[str, Callable[[], Any]]]:
    """Return the questions about Prefect, this interpreter, and the interpreter of the command `prefect`.

    Args:
        limit: maximum time for each answer, in seconds
    """
    return [
        {"setting": lambda: read_setting(limit), "build settings": setting_checks.ask, "patches": _patches},
        {"python": lambda: probe(sys.executable, limit)},
        {"prefect command": lambda: _prefect_command(limit)},
    ]


def disabled(answers: Answers) -> bool | None:
    """Whether the setting is on; `None` if this is not known yet."""
    try:
        setting = answers["setting"]
    except Pending:
        return None
    return not isinstance(setting, BaseException) and bool(setting[0])


def findings(answers: Answers) -> dict[str, Finding | None]:
    """Evaluate the answers to `questions`. The finding is `None` if the answer has not arrived yet."""
    judges: dict[str, Callable[[], Finding]] = {
        "package": lambda: _package(answers, disabled=bool(disabled(answers))),
        "Prefect": lambda: _requirement("prefect"),
        "docker-py": lambda: _requirement("docker"),
        "prefect on PATH": lambda: _judge_command(answers["prefect command"]),
        "setting": lambda: _judge_setting(answers["setting"]),
    }
    return judge_all(judges, {})


def interpreter_of(script: str) -> str | None:
    """Return the interpreter of a console script; `None` if its first lines do not name one."""
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
        # pip writes this form if the path is too long for the first line (its vendored distlib, scripts.py).
        words = shlex.split(rest.partition("\n")[0])[1:]
    return words[0] if words and "python" in os.path.basename(words[0]) else None


def _patches() -> str:
    """Import Prefect, and return why the package cannot patch it; ``""`` if all patches are installed."""
    from prefect.settings import Settings

    from prefect_docker_attest.patches import docker_py_client

    # Importing a module runs its hook. prefect-docker is not imported: it takes seconds, and uses the same modules.
    for name in startup.HOOKS:
        with contextlib.suppress(Exception):  # this Prefect does not have the module, or refuses its settings
            if name.startswith("prefect."):
                importlib.import_module(name)
    if startup.failures or not startup.autoload():
        return "; ".join(f"{name}: {first_line(error)}" for name, error in startup.failures.items())
    patched = docker_py_client.is_installed(importlib.import_module(startup.DOCKER_PY))
    return "" if patched and "docker" in Settings.model_fields else _TOO_LATE


def _package(answers: Answers, *, disabled: bool) -> Finding:
    here = f"{importlib.metadata.version(_DISTRIBUTION)} in {sys.executable}"
    reasons = answers["patches"]
    if isinstance(reasons, BaseException):
        found = f"{here}: Prefect cannot be imported: {type(reasons).__name__}: {first_line(reasons)}"
        if isinstance(reasons, UnansweredError):
            return "skipped", "see setting", ""
        return "problem", found, "`python -c 'import prefect'` shows why."
    if reasons == _TOO_LATE:
        return "problem", f"{here} was imported too late", f"Import {startup.__package__} before prefect."
    if reasons:
        return "problem", f"{here} cannot patch this Prefect ({reasons})", f"`pip install --upgrade {_DISTRIBUTION}`"
    if not startup.autoload():
        found = f"{here} does not patch Prefect's builds: {startup.AUTOLOAD}={os.environ[startup.AUTOLOAD]}"
        return "problem" if disabled else "warning", found, f"`unset {startup.AUTOLOAD}`"
    return _activation(answers["python"], here, disabled=disabled)


def _activation(probed: Activation | Exception, here: str, *, disabled: bool) -> Finding:
    if isinstance(probed, BaseException):
        found = f"{here}; what loads it is unknown: {first_line(probed)}"
        return "warning", found, f"Run `{sys.executable} -c pass`."
    if probed.way == "start-up file":
        return "ok", f"{here}, active: its start-up file loads it", ""
    if probed.way == "import":
        return "ok", f"{here}, active: an import at Python's start loads it", ""
    install = f"Install {_DISTRIBUTION} with pip or uv into the environment that runs Prefect"
    if loaded_as_plugin():
        found = (
            f"{here}, active: Prefect's plugin hook loads it. This is too late for `prefect config`, which does not "
            "know the setting"
        )
        return "warning", found, f"{install}, or set the environment variable {SETTING}."
    found = (
        f"{here}, active only in this command: Python found no start-up file of it, and Prefect did not load it as a "
        "plugin"
    )
    advice = f"{install}, or import {startup.__package__} before prefect."
    return "problem" if disabled else "warning", found, advice


def _requirement(name: str) -> Finding:
    required = [Requirement(text) for text in importlib.metadata.requires(_DISTRIBUTION) or ()]
    supported = next(requirement.specifier for requirement in required if requirement.name == name)
    version = importlib.metadata.version(name)
    if supported.contains(version, prereleases=True):
        return "ok", version, ""
    return "problem", f"{version} is not supported: {supported} is needed", f"`pip install '{name}{supported}'`"


def _prefect_command(limit: int) -> tuple[str | None, Activation | None]:
    """Return the `prefect` on PATH, and what loads this package into its Python; `None` if this is not known."""
    command = shutil.which("prefect")
    interpreter = interpreter_of(command) if command else None
    try:
        return command, probe(interpreter, limit) if interpreter else None
    except (OSError, subprocess.SubprocessError, ValueError):
        return command, None


def _judge_command(answer: tuple[str | None, Activation | None] | BaseException) -> Finding:
    advice = "If the package is active, `prefect config view --show-defaults` lists the setting."
    if isinstance(answer, BaseException):
        return "warning", f"its Python could not be found: {first_line(answer)}", advice
    command, probed = answer
    if command is None:
        return "warning", "not on PATH", "Activate the environment before `prefect deploy`."
    if probed is None:
        return "warning", f"the Python of {command} could not be found", advice
    if probed.prefix == sys.prefix:
        return "ok", f"{command} runs in this environment", ""
    found = f"{command} runs in another environment, {probed.prefix}"
    advice = (
        f"Install {_DISTRIBUTION} there (`pipx inject prefect {_DISTRIBUTION}`), or use this environment's `prefect`."
    )
    if probed.way == "not found":
        return "problem", f"{found}, without the package", advice
    if probed.way == "not loaded" and not loaded_as_plugin():
        return "problem", f"{found}, where nothing loads the package", advice
    return "ok", f"{found}, with the package", ""


def read_setting(limit: int) -> tuple[bool, Finding]:
    """Import Prefect's settings, and return whether the setting is on, and a finding about it."""
    check_answers(limit / 2)
    importlib.import_module("prefect.settings")  # it must be imported before our own settings
    from pydantic import ValidationError

    from prefect_docker_attest.patches import settings_reader

    try:
        value, source = settings_reader.source_of("disable_attestations")
    except Exception as error:  # Prefect raises different exceptions for invalid files
        return False, (
            "problem",
            f"Prefect cannot read its settings: {first_line(error)}",
            "Fix prefect.toml, pyproject.toml or the profiles.",
        )
    try:
        disabled = settings_reader.read_settings().disable_attestations
    except ValidationError as error:
        # The error's own text is not shown: it quotes values, which can be secrets.
        reasons = [f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors(include_input=False)]
        found = f"Prefect refuses its settings ({'; '.join(reasons)}); {SETTING} is {value!r} ({source})"
        return False, ("problem", found, "Set it to true or false, or unset it.")
    if disabled:
        return True, ("ok", f"{SETTING} is on ({source})", "")
    advice = f"`export {SETTING}=true`\nor `prefect config set {SETTING}=true`"
    return False, ("warning", f"{SETTING} is off ({source})", advice)


def _judge_setting(answer: tuple[bool, Finding] | BaseException) -> Finding:
    if isinstance(answer, UnansweredError):
        return "problem", str(answer), "Prefect waits for this file at every start. Replace it, or unmount its folder."
    if isinstance(answer, BaseException):
        found = f"Prefect cannot read its settings: {type(answer).__name__}: {first_line(answer)}"
        return (
            "problem",
            found,
            "`prefect config view` shows the error. Fix .env, prefect.toml, pyproject.toml or the profiles.",
        )
    return answer[1]
