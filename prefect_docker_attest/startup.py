"""Patches modules of Prefect, docker-py and python-on-whales directly after they have executed.

This module runs in every process that imports Prefect. So it imports only the standard library, prints nothing, and
raises nothing: `failures` keeps the exceptions. Only `run_hook` can raise an error, to refuse a build.

Prefect's settings must be patched before another module imports a name from them. docker-py and python-on-whales take
long to import, so they are patched when another module imports them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.import_hook import Finder
from prefect_docker_attest.names import SETTING, bare, is_on
from prefect_docker_attest.refusal import refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

AUTOLOAD = "PREFECT_DOCKER_ATTEST_AUTOLOAD"
"""Environment variable. ``0`` disables the patches of builds. The settings stay registered with Prefect, because
Prefect deletes unknown settings from profiles."""

ROOT_SETTINGS = "prefect.settings.models.root"
DOCKER_PY = "docker.api.client"
PYTHON_ON_WHALES = "python_on_whales.components.buildx.cli_wrapper"
PATCHES = {DOCKER_PY: "APIClient", PYTHON_ON_WHALES: "BuildxCLI"}
"""The modules that have a class to patch, with the name of the class."""

DOCKERUTILS = "prefect.utilities.dockerutils"
BUILDING = (
    DOCKERUTILS,
    "prefect.docker.docker_image",
    "prefect._internal.buildx",
    "prefect.docker._buildx",  # the same module before Prefect 3.7.1
    "prefect_docker.deployments.steps",
)
"""The modules that have Prefect's build functions."""

# The functions that must refuse builds if the class in this module cannot be patched.
_REFUSING = {
    DOCKER_PY: ("docker_client", "build_image", "build_docker_image"),
    PYTHON_ON_WHALES: ("buildx_build_image",),
}

SENTINEL = "PrefectDockerAttestSentinel"
"""The name of the finder that the start-up file adds (``prefect_docker_attest_start``)."""

failures: dict[str, Exception] = {}
"""The exceptions that hooks raised, by the name of the module to patch."""

_enabled: bool | None = None
# The modules of `PATCHES` whose hook has run, or will run after they have executed.
_known: dict[str, ModuleType] = {}


def autoload() -> bool:
    """Whether the environment allows the patches of builds (see `AUTOLOAD`)."""
    return is_on(bare(os.environ.get(AUTOLOAD, "")) or "1")


def enabled() -> bool:
    """Whether Prefect's builds are patched: the value of the last call of `enable`, or `autoload` if there was none."""
    return autoload() if _enabled is None else _enabled


def enable(value: bool) -> None:
    """Enable or disable the patches of builds. `False` does not remove patches that are installed already."""
    global _enabled  # noqa: PLW0603
    _enabled = value
    if value:
        _known.clear()
        activate()
        _patch_loaded()


def _register_setting(root: ModuleType) -> None:
    from prefect_docker_attest.patches import registration

    registration.register(root)


def _patch_docker_py(module: ModuleType) -> None:
    if enabled():
        from prefect_docker_attest.patches import docker_py_client

        docker_py_client.install(module)


def _patch_python_on_whales(module: ModuleType) -> None:
    if enabled():
        from prefect_docker_attest.patches import build_backend

        build_backend.install(module)


def _patch_loaded(_module: ModuleType | None = None) -> bool:
    """Patch classes in modules that were loaded without this finder.

    Returns:
        whether such a module is still executing, so that its class cannot be patched yet
    """
    loading = False
    for name, class_name in PATCHES.items():
        module = sys.modules.get(name)
        if module is None:
            _known.pop(name, None)
        elif module is not _known.get(name):
            if class_name in (namespace := _namespace(module)):
                run_hook(module, name)
            elif getattr(namespace.get("__spec__"), "_initializing", False):
                loading = True
    return loading


def _patch_missed_modules(finder: Finder) -> None:
    # Another finder before this one, such as that of a type checker, may have found a module of `PATCHES`.
    for name in PATCHES:
        if sys.modules.get(name) is not _known.get(name):
            if _patch_loaded():
                finder.go_first()
            return


def _mark_known(module: ModuleType) -> None:
    if module.__name__ in PATCHES:
        _known[module.__name__] = module


def _refuse_builds(module: ModuleType) -> None:
    """Wrap Prefect's build functions if the class that they use could not be patched. The wrappers refuse builds."""
    for name, functions in _REFUSING.items():
        for function in functions if name in failures else ():
            original = _namespace(module).get(function)
            if callable(original) and not hasattr(original, "_refuses"):
                setattr(module, function, _fail_if_enabled(original, failures[name]))


def _namespace(module: ModuleType) -> dict[str, Any]:
    # The usual attribute access would load a module that is loaded lazily.
    with contextlib.suppress(AttributeError):
        namespace: dict[str, Any] = object.__getattribute__(module, "__dict__")
        return namespace
    return {}


def _fail_if_enabled(function: Callable[..., Any], reason: Exception) -> Callable[..., Any]:
    """Wrap a build function of Prefect. The wrapper raises an error if a setting requires buildx."""

    @functools.wraps(function)
    def refuse(*args: Any, **kwargs: Any) -> Any:
        if enabled() and (settings := _active_settings()):
            raise refusal(reason, settings) from reason
        return function(*args, **kwargs)

    refuse._refuses = True  # type: ignore[attr-defined]  # noqa: SLF001
    return refuse


def _active_settings() -> list[str]:
    """Return the variables of the settings that require buildx; empty if there are none."""
    try:
        from prefect_docker_attest.patches import settings_reader

        return settings_reader.read_settings().variables()
    except Exception:  # some modules of this package were removed
        return [SETTING] if is_on(os.environ.get(SETTING, "")) else []


def _runs_docker_client() -> bool:
    # Prefect imports docker-py inside `docker_client`, when it first needs a client. A wrapper of this function would
    # come too late for this call.
    from prefect_docker_attest.patches.caller import prefect_function

    return prefect_function() == "docker_client"


HOOKS: dict[str, Callable[[ModuleType], Any]] = {
    ROOT_SETTINGS: _register_setting,
    DOCKER_PY: _patch_docker_py,
    "docker.client": _patch_loaded,  # it executes after DOCKER_PY, which another finder may have found
    PYTHON_ON_WHALES: _patch_python_on_whales,
    **dict.fromkeys(BUILDING, _refuse_builds),
}


def activate() -> None:
    """Install the import hook. It takes the place of the start-up file's finder if that is present.

    A second call does nothing. Modules that are loaded already are patched at once, except for Prefect's settings,
    which can only be patched while they are loaded.
    """
    if any(isinstance(finder, Finder) for finder in sys.meta_path):
        return
    finder = Finder(
        HOOKS,
        before_look_up=_patch_missed_modules,
        before=_mark_known,
        after=lambda module: run_hook(module, module.__name__),
    )
    slots = [slot for slot, present in enumerate(sys.meta_path) if getattr(present, "__name__", "") == SENTINEL]
    for slot in slots:
        sys.meta_path[slot] = finder
    if not slots or "prefect" in sys.modules:
        finder.go_first()
    if enabled():
        try:
            # Imported now, so that it still works if the package is uninstalled while this process runs.
            from prefect_docker_attest.patches import docker_py_client  # noqa: F401
        except Exception as error:
            failures[DOCKER_PY] = error
    _patch_loaded()
    for name in BUILDING:
        if name in sys.modules:
            run_hook(sys.modules[name], name)


def run_hook(module: ModuleType, name: str) -> None:
    """Run the hook of a module that has executed. `failures` keeps the exception that the hook raises.

    Raises:
        BuildError: Prefect's error, raised if Prefect's ``docker_client`` is importing this module and a setting
            requires buildx: the client's builds cannot be taken over
    """
    if name in PATCHES:
        _known[name] = module
    try:
        HOOKS[name](module)
        failures.pop(name, None)
    except Exception as error:
        failures[name] = error
        for building in BUILDING:
            if building in sys.modules:
                _refuse_builds(sys.modules[building])
        if name == DOCKER_PY and (settings := _active_settings()) and _runs_docker_client():
            raise refusal(error, settings) from error
