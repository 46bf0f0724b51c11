"""Post-import hooks: change Prefect's modules in the moment they have executed.

Runs inside every interpreter that imports Prefect, so: standard library only, no output, no error.
What went wrong is kept in `failures`. The hooks fire before any other module binds a name from the
module that they change; importing the module in order to change it would be too late.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from importlib.abc import Loader, MetaPathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

AUTOLOAD = "PREFECT_DOCKER_ATTEST_AUTOLOAD"
"""Environment variable; ``0`` leaves Prefect's builds alone, while the setting stays registered (Prefect
deletes what it does not know from a profile)."""

ROOT_SETTINGS = "prefect.settings.models.root"
DOCKERUTILS = "prefect.utilities.dockerutils"
BUILD_BACKENDS = ("prefect._internal.buildx", "prefect.docker._buildx")
"""Where Prefect's ``build_backend="buildx"`` is, in newer Prefect and before."""
SENTINEL = "PrefectDockerAttestSentinel"

failures: dict[str, Exception] = {}
"""The exceptions that hooks raised, by the name of the module they were to change."""


def autoload() -> bool:
    """Whether this process lets Prefect's builds be switched (see `AUTOLOAD`)."""
    return os.environ.get(AUTOLOAD, "").strip().lower() not in ("0", "false", "no", "off")


def _register_setting(root: ModuleType) -> None:
    from prefect_docker_attest import settings

    settings.register(root)


def _switch_docker_client(dockerutils: ModuleType) -> None:
    if autoload():
        from prefect_docker_attest import client

        client.install(dockerutils)


def _switch_build_backend(backend: ModuleType) -> None:
    if autoload():
        from prefect_docker_attest import build_backend

        build_backend.install(backend)


def _switch_steps(steps: ModuleType) -> None:  # noqa: ARG001
    # They open their clients themselves: where those could not be switched, they cannot be either.
    if DOCKERUTILS in failures:
        raise failures[DOCKERUTILS]


HOOKS: dict[str, Callable[[ModuleType], None]] = {
    ROOT_SETTINGS: _register_setting,
    DOCKERUTILS: _switch_docker_client,
    **dict.fromkeys(BUILD_BACKENDS, _switch_build_backend),
    "prefect_docker.deployments.steps": _switch_steps,
}


def activate() -> None:
    """Install the hooks, once, in the place of the ``.pth`` file's sentinels where they are present.

    Modules that are loaded already are changed at once, except for Prefect's settings, which cannot be.
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    finder = _Finder()
    slots = [slot for slot, present in enumerate(sys.meta_path) if getattr(present, "__name__", "") == SENTINEL]
    for slot in slots:
        sys.meta_path[slot] = finder
    if not slots:
        sys.meta_path.insert(0, finder)
    for name in HOOKS:
        if name != ROOT_SETTINGS and name in sys.modules:
            run_hook(sys.modules[name])


def run_hook(module: ModuleType) -> None:
    """Run the hook of a module that has executed; what it raises lands in `failures`."""
    try:
        HOOKS[module.__name__](module)
        failures.pop(module.__name__, None)
    except Exception as error:
        failures[module.__name__] = error
        for name in ("build_image", "buildx_build_image", "build_docker_image"):
            if callable(getattr(module, name, None)):
                setattr(module, name, _refusing(getattr(module, name), error))


def _refusing(build: Callable[..., Any], reason: Exception) -> Callable[..., Any]:
    """Prefect's function for builds that could not be switched: with the setting on it refuses, and says why."""

    @functools.wraps(build)
    def refusing(*args: Any, **kwargs: Any) -> Any:
        from prefect_docker_attest import switch

        if switch.attestations_disabled():
            raise RuntimeError(
                f"{switch.NAME} is on, but prefect-docker-attest cannot switch the builds of this version of Prefect "
                f"({reason}). Upgrade prefect-docker-attest, or unset the setting and build the image yourself: "
                "`docker buildx build --provenance=false --sbom=false --push`, with build=False and push=False."
            )
        return build(*args, **kwargs)

    return refusing


class _Finder(MetaPathFinder):
    """Finds the modules of `HOOKS` as the other finders do, and has their hook run after them."""

    def __init__(self) -> None:
        # The modules that a thread is looking up: another package's finder of this kind asks all finders anew,
        # and so this one again.
        self._asking = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in HOOKS or fullname in (asking := vars(self._asking)):
            return None
        asking[fullname] = True
        try:
            for finder in list(sys.meta_path):
                find_spec = getattr(finder, "find_spec", None)
                if finder is self or find_spec is None:
                    continue
                spec: ModuleSpec | None = find_spec(fullname, path, target)
                if spec is not None:
                    if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                        spec.loader = _Loader(spec.loader)
                    return spec
            return None
        finally:
            del asking[fullname]


class _Loader(Loader):
    """Loads one module with its own loader, gives that loader back to it, and runs its hook."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":  # Copying asks an object that has no attributes yet.
            raise AttributeError(name)
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        run_hook(module)
