"""Patches python-on-whales' ``buildx.build``, which Prefect's ``build_backend="buildx"`` calls.

Since 3.6.24, Prefect calls it in `_buildx_build_once`, once for each attempt, and uses the ``id`` of the returned
object (prefect/_internal/buildx.py; before Prefect 3.7.1 prefect/docker/_buildx.py).
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.patches import decision
from prefect_docker_attest.patches.caller import is_build, prefect_frame
from prefect_docker_attest.patches.replacing import is_ours, replace
from prefect_docker_attest.refusal import refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def install(module: ModuleType) -> None:
    """Patch `BuildxCLI`. A second call does nothing.

    Args:
        module: the module ``python_on_whales.components.buildx.cli_wrapper``

    Raises:
        TypeError: this version of python-on-whales is not supported. Nothing is changed
    """
    cli: Any = getattr(module, "BuildxCLI", None)
    if not callable(getattr(cli, "build", None)):
        raise TypeError(f"{module.__name__} has no BuildxCLI.build: this version of python-on-whales is not supported")
    replace(cli, "build", _wrap_build)


def is_installed(module: ModuleType) -> bool:
    """Whether `install` has patched the `BuildxCLI` of this module, and no other package has replaced it since."""
    return is_ours(getattr(getattr(module, "BuildxCLI", None), "build", None))


def _wrap_build(original: Callable[..., Any]) -> Callable[..., Any]:
    def build(self: Any, *args: Any, **kwargs: Any) -> Any:
        frame = prefect_frame()
        if frame is None or not is_build(frame.f_code.co_name):
            return original(self, *args, **kwargs)
        # Prefect does not pass the stream on, because python-on-whales prints to the terminal.
        stream = frame.f_locals.get("stream_progress_to")
        decided = decision.decide("python-on-whales")
        if not decided.use_buildx:
            return original(self, *args, **kwargs)
        try:
            from prefect_docker_attest.buildx import whales_build
        except ImportError as error:  # the package was uninstalled while this process runs
            raise refusal(error, decided.settings.variables()) from error
        # Prefect passes all options by name. Another package's wrapper can pass some by position.
        options = inspect.signature(original).bind(self, *args, **kwargs).arguments if args else kwargs
        options.pop("self", None)
        with decision.prefect_errors():
            image_id = whales_build.build(options, decided.settings, stream)
        return None if image_id is None else SimpleNamespace(id=image_id)

    return build
