"""The doctor's checks of this Python: the package, Prefect, docker-py and the command `prefect`."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import sys
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from prefect_docker_attest import startup
from prefect_docker_attest.doctor.check import Finding, NoAnswerError, SeeOther
from prefect_docker_attest.doctor.setting_files import UnreadableError
from prefect_docker_attest.names import SETTING

if TYPE_CHECKING:
    from prefect_docker_attest.doctor.answers import Answers
    from prefect_docker_attest.doctor.prefect_facts import PrefectFacts

_DISTRIBUTION = "prefect-docker-attest"


def of_prefect(answers: Answers) -> PrefectFacts:
    """Wait for the facts about Prefect, and return them.

    Raises:
        SeeOther: another check shows why Prefect is not imported
        NoAnswerError: the facts do not arrive in time
    """
    _wait_for_files(answers)
    facts = answers.prefect.result()
    if facts.import_error:
        raise SeeOther("Prefect")
    return facts


def _wait_for_files(answers: Answers) -> None:
    try:
        for file in answers.files.values():
            file.result()
    except (UnreadableError, NoAnswerError):
        raise SeeOther("setting") from None


def package(answers: Answers) -> Finding:
    """Check that this package patches Prefect, and what loads it."""
    here = f"{importlib.metadata.version(_DISTRIBUTION)} in {sys.executable}"
    facts = of_prefect(answers)
    answers.require("docker-py")
    if facts.patch_failures:
        found = f"{here} cannot patch this Prefect ({'; '.join(facts.patch_failures)})"
        return Finding("problem", found, f"`pip install --upgrade {_DISTRIBUTION}`")
    if not startup.autoload():
        found = f"{here} does not patch Prefect's builds: {startup.AUTOLOAD}={os.environ[startup.AUTOLOAD]}"
        return _inactive(facts, found, f"`unset {startup.AUTOLOAD}`")
    if not facts.patched:
        return Finding("problem", f"{here} was imported too late", f"Import {startup.__package__} before prefect.")
    return _activation(here, facts)


def _activation(here: str, facts: PrefectFacts) -> Finding:
    if facts.way == "start-up file":
        return Finding("ok", f"{here}, active: its start-up file loads it")
    if facts.way == "import":
        return Finding("ok", f"{here}, active: an import at Python's start loads it")
    install = f"Install {_DISTRIBUTION} with pip or uv into the environment that runs Prefect"
    if facts.by_plugin:
        found = (
            f"{here}, active: Prefect's plugin hook loads it. This is too late for `prefect config`, which does not "
            "know the setting"
        )
        return Finding("warning", found, f"{install}, or set the environment variable {SETTING}.")
    return _inactive(facts, f"{here}: {SETTING} has no effect, because nothing loads this package", _loading(install))


def _loading(install: str) -> str:
    """Return what to do if nothing loads the package: install it, or import it."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(startup.__file__)))
    searched = map(os.path.abspath, filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    if folder not in searched:
        return f"{install}, or import {startup.__package__} before prefect."
    found = f"{install}: Python reads no start-up files in {folder} (PYTHONPATH)."
    # Python imports this module at its start. It does not read .pth files in folders of PYTHONPATH.
    module = os.path.join(folder, "sitecustomize.py")
    if os.name != "posix":  # PowerShell's `>>` can write UTF-16, and cmd keeps the quotes
        return f"{found}\nor add the line `import {startup.__package__}` to {module}"
    return f"{found}\nor `echo 'import {startup.__package__}' >> {shlex.quote(module)}`"


def _inactive(facts: PrefectFacts, found: str, advice: str) -> Finding:
    """Return a finding about a package that does not patch builds. With the setting on, this is a problem."""
    return Finding("problem" if facts.values.disable_attestations else "warning", found, advice)


def prefect(answers: Answers) -> Finding:
    """Check that Prefect is supported and can be imported."""
    if unsupported := _unsupported("prefect"):
        return unsupported
    _wait_for_files(answers)
    return _imported("prefect", answers.prefect.result().import_error)


def docker_py(answers: Answers) -> Finding:
    """Check that docker-py is supported and can be imported."""
    return _unsupported("docker") or _imported("docker", answers.docker_py.result())


def _unsupported(name: str) -> Finding | None:
    """Return the problem of a package that is not installed, or has another version than this package needs."""
    required = [Requirement(text) for text in importlib.metadata.requires(_DISTRIBUTION) or ()]
    supported = next(requirement.specifier for requirement in required if requirement.name == name)
    install = f"`pip install '{name}{supported}'`"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding("problem", "not installed", install)
    if supported.contains(version, prereleases=True):
        return None
    return Finding("problem", f"{version} is not supported: {supported} is needed", install)


def _imported(name: str, error: str) -> Finding:
    version = importlib.metadata.version(name)
    if not error:
        return Finding("ok", version)
    return Finding("problem", f"{version} cannot be imported: {error}", f"`python -c 'import {name}'` shows why.")


def prefect_on_path(answers: Answers) -> Finding:
    """Check that the command ``prefect`` runs in an environment in which this package is loaded."""
    command = answers.command.result()
    if command.path is None:
        return Finding("warning", "not on PATH", "Activate the environment before `prefect deploy`.")
    if command.activation is None:
        advice = "If the package is active, `prefect config view --show-defaults` lists the setting."
        return Finding("warning", f"the Python of {command.path} could not be found", advice)
    prefix, way = command.activation.prefix, command.activation.way
    if prefix == sys.prefix:
        return Finding("ok", f"{command.path} runs in this environment")
    found = f"{command.path} runs in another environment, {prefix}"
    advice = (
        f"Install {_DISTRIBUTION} there (`pipx inject prefect {_DISTRIBUTION}`), or use this environment's `prefect`."
    )
    if way == "not found":
        return Finding("problem", f"{found}, without the package", advice)
    if way == "not loaded" and not of_prefect(answers).by_plugin:
        return Finding("problem", f"{found}, where nothing loads the package", advice)
    return Finding("ok", f"{found}, with the package")
