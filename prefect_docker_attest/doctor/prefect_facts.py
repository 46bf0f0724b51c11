"""Finds facts about Prefect, its patches and its settings in a new process of this Python.

Prefect's import can take long, fail, or block other imports of the process. So the doctor's own process does not import
Prefect.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from prefect_docker_attest import startup, subprocesses
from prefect_docker_attest.build_settings import BuildSettings
from prefect_docker_attest.doctor.activation import FIND_WAY
from prefect_docker_attest.doctor.check import NoAnswerError, first_line
from prefect_docker_attest.names import variable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future

    from pydantic import ValidationError

    from prefect_docker_attest.doctor.activation import Way


# The path of modules is that of this process, so that the same modules are found.
_PROGRAM = f"""
import json, sys
sys.path[:] = json.loads(sys.argv[1])
{FIND_WAY}
from {__name__} import print_facts
print_facts(way)
"""

_BEGINNING = '{"import_error": '


@dataclass
class PrefectFacts:
    """What a new process finds out about Prefect. It travels as JSON.

    Attributes:
        import_error: why Prefect cannot be imported; ``""`` if it can. The other facts are then not known
        way: what loads this package
        patch_failures: why modules could not be patched
        patched: whether all patches are installed
        by_plugin: whether Prefect has loaded this package as a plugin
        settings_error: why the settings cannot be read; ``""`` if they can. The following facts are then not known
        refuses_value: whether this is because of a value of this package's settings
        settings: values of the settings: the fields of `BuildSettings`
        sources: sources of ``disable_attestations`` and of the defaults that are set, by setting
        build_error: error message of a build with these values; ``""`` if they are valid
        for_buildkit: variables of the settings that only BuildKit can fulfil, if all values are valid
        profiles: the profiles that are not active and turn `SETTING` on
        overridden: the sources that turn `SETTING` on, including the one that has an effect
        misspelled: right names, by names that are almost right with their sources
    """

    import_error: str = ""
    way: Way = "start-up file"
    patch_failures: list[str] = field(default_factory=list)
    patched: bool = True
    by_plugin: bool = False
    settings_error: str = ""
    refuses_value: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    build_error: str = ""
    for_buildkit: list[str] = field(default_factory=list)
    profiles: list[str] = field(default_factory=list)
    overridden: list[str] = field(default_factory=list)
    misspelled: dict[str, str] = field(default_factory=dict)

    @property
    def values(self) -> BuildSettings:
        """The settings."""
        return BuildSettings(**self.settings)

    @property
    def is_loaded(self) -> bool:
        """Whether something loads this package into programs of this Python that import Prefect."""
        return self.way in ("start-up file", "import") or self.by_plugin


def ask_prefect(files: Iterable[Future[None]], limit: int) -> PrefectFacts:
    """Return the facts that a new process of this Python finds.

    Args:
        files: whether Prefect's settings files can be read. They are waited for, because Prefect would wait for them
        limit: seconds to wait, including the time for the files

    Raises:
        UnreadableError: a settings file cannot be read
        NoAnswerError: the process takes longer
    """
    end = time.monotonic() + limit
    for file in files:
        file.result()
    command = [sys.executable, "-c", _PROGRAM, json.dumps(sys.path)]
    answer = subprocesses.run_bounded(command, timeout=max(0, end - time.monotonic()))
    if answer.returncode == subprocesses.TIMED_OUT and time.monotonic() >= end:
        raise NoAnswerError(f"`import prefect` took longer than {limit} s")
    # Other modules can print too, also when Python ends.
    facts = [line for line in answer.stdout.splitlines() if line.startswith(_BEGINNING)]
    if facts:
        return PrefectFacts(**json.loads(facts[-1]))
    reason = answer.stderr.strip().splitlines() or ["it prints nothing"]
    return PrefectFacts(f"Python ended with exit code {answer.returncode}: {first_line(reason[-1])}")


def print_facts(way: Way) -> None:
    """Print the facts as JSON."""
    print("\n" + json.dumps({**asdict(find_facts()), "way": way}))  # noqa: T201 this is the answer


def find_facts() -> PrefectFacts:
    """Import Prefect, and find out about it."""
    facts = PrefectFacts()
    try:
        # Prefect's settings must be imported before this package's own settings.
        importlib.import_module("prefect.settings")
    except BaseException as error:  # also SystemExit, which some modules raise when they are imported
        facts.import_error = f"{type(error).__name__}: {first_line(error)}"
        return facts
    _add_patches(facts)
    try:
        _add_settings(facts)
    except Exception as error:  # Prefect raises different exceptions for invalid files
        facts.settings_error = f"Prefect cannot read its settings: {type(error).__name__}: {first_line(error)}"
        return facts
    with contextlib.suppress(Exception):  # nothing is said about a form of settings files that is not known
        _add_other_sources(facts)
    return facts


def _add_patches(facts: PrefectFacts) -> None:
    # Importing a module runs its hook. prefect-docker is not imported: it takes seconds, and uses the same modules.
    for name in startup.HOOKS:
        with contextlib.suppress(Exception):  # this Prefect does not have the module, or refuses its settings
            if name.startswith("prefect."):
                importlib.import_module(name)
    facts.patch_failures = [f"{name}: {first_line(error)}" for name, error in startup.failures.items()]
    facts.by_plugin = f"{startup.__package__}.plugin" in sys.modules
    facts.patched = False
    with contextlib.suppress(Exception):  # the check `docker-py` shows that it cannot be imported
        from prefect.settings import Settings

        from prefect_docker_attest.patches import docker_py_client

        patched = docker_py_client.is_installed(importlib.import_module(startup.DOCKER_PY))
        facts.patched = patched and "docker" in Settings.model_fields


def _add_settings(facts: PrefectFacts) -> None:
    import pydantic
    from prefect.settings import get_current_settings

    from prefect_docker_attest.patches import settings_reader

    try:
        get_current_settings()  # `read_settings` does not need Prefect's other settings
        values = settings_reader.read_settings()
    except pydantic.ValidationError as error:
        own, others = _refused_values(), _reasons(error)
        others = [reason for reason in others if "PREFECT_DOCKER_" not in reason]
        facts.refuses_value = bool(own)
        refused = [f"Prefect refuses its settings ({'; '.join(others)})"] if others else []
        facts.settings_error = "; ".join([*own, *refused])
        return
    facts.settings = {name: value for name, value in vars(values).items() if name != "find_source"}
    facts.sources = {name: values.find_source(name) for name in ("disable_attestations", *values.defaults)}
    with contextlib.suppress(ImportError):  # the check `docker-py` shows that it cannot be imported
        facts.build_error = _build_error(values)
        facts.for_buildkit = [] if facts.build_error else _for_buildkit(values)


def _refused_values() -> list[str]:
    """Return why values of this package's settings are refused. Prefect's own settings can be refused before them."""
    import pydantic

    from prefect_docker_attest.patches.docker_settings import DockerSettings

    try:
        DockerSettings()
    except pydantic.ValidationError as error:
        return [reason.partition("Value error, ")[2] or reason for reason in _reasons(error)]
    return []


def _reasons(error: ValidationError) -> list[str]:
    # The error's own text is not shown: it quotes values, which can be secrets.
    return [f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors(include_input=False)]


def _build_error(values: BuildSettings) -> str:
    from prefect_docker_attest.errors import OptionError
    from prefect_docker_attest.options import default_values
    from prefect_docker_attest.options.table import BuildxOptions
    from prefect_docker_attest.platforms import Platform

    options = BuildxOptions(context="/", tags=("image:tag",))
    try:
        default_values.apply_defaults(values, options, "", lambda: Platform.of_text("linux/amd64"))
    except OptionError as refused:
        return str(refused)
    return ""


def _for_buildkit(values: BuildSettings) -> list[str]:
    from prefect_docker_attest.options.podman_options import settings_for_buildkit

    return list(map(variable, settings_for_buildkit(values)))


def _add_other_sources(facts: PrefectFacts) -> None:
    from prefect_docker_attest.doctor import other_sources

    facts.misspelled = other_sources.misspelled_names()
    facts.overridden = other_sources.sources_that_turn_on()
    facts.profiles = other_sources.profiles_that_turn_on()
