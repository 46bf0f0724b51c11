"""Reads the settings other than ``docker.disable_attestations`` for a build, and warns if they cause attestations."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.names import SETTING, logger, variable
from prefect_docker_attest.options.defaults import NAMES, Defaults

if TYPE_CHECKING:
    from docker import APIClient

    from prefect_docker_attest.patches.settings import DockerSettings


_OFF = ("0", "false", "f", "no", "n", "off")
_STEP = ("prefect_docker.deployments.steps", "build_docker_image")

_warned = threading.Event()


def read() -> Defaults:
    """Return the current defaults of build options. Their values are not checked."""
    group = _group()
    if group is None:
        defaults = Defaults(**{name: os.environ.get(variable(name), "").strip() for name in NAMES})
        return defaults.without(["push_from_builder"] if defaults.push_from_builder.lower() in _OFF else [])
    return Defaults(**{name: _text(getattr(group, name)) for name in NAMES})


def _text(value: str | bool | None) -> str:
    return "true" if value is True else value or ""


def image_of_step() -> str:
    """Return the name that prefect-docker's step will give the image that is built now; ``""`` outside the step.

    The step builds without a name. The tag in the result is empty if the step has not chosen it yet.
    """
    frame = sys._getframe()  # noqa: SLF001 the public function `inspect.stack` reads source files
    while caller := frame.f_back:
        frame = caller
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == _STEP:
            return f"{frame.f_locals['image_name']}:{frame.f_locals['tag'] or ''}"
    return ""


def warn_of_attestations(api: APIClient, defaults: Defaults) -> None:
    """Warn if buildx builds an image only because of these settings, and adds attestations to it.

    The warning is logged at most once in a process.

    Args:
        api: a client of the engine
        defaults: the settings that require buildx
    """
    from prefect_docker_attest.buildx.engine import uses_containerd_store

    if _warned.is_set() or not _buildx_attests():
        return
    if not defaults.push_from_builder and not uses_containerd_store(api.info()):
        return
    _warned.set()
    logger.warning(
        "%s: images are built by docker buildx, which adds attestations to them. Some platforms reject such images. "
        "Set %s=true to build without attestations, or =false to build with attestations and without this warning.",
        " and ".join(defaults.variables()),
        SETTING,
    )


def _buildx_attests() -> bool:
    """Whether buildx uses its own default for attestations, because neither a setting nor a variable is set."""
    # The values that buildx reads as true (Go's strconv.ParseBool).
    if os.environ.get("BUILDX_NO_DEFAULT_ATTESTATIONS", "").lower() in ("1", "t", "true"):
        return False
    group = _group()
    return "disable_attestations" not in group.model_fields_set if group else not os.environ.get(SETTING)


def _group() -> DockerSettings | None:
    """Return the settings of the group ``docker``; `None` with an unsupported version of Prefect."""
    try:
        from prefect.settings import get_current_settings

        from prefect_docker_attest.patches.settings import DockerSettings
    except Exception:  # `current_setting` logs a warning
        return None
    group: Any = getattr(get_current_settings(), "docker", None)
    return group if all(hasattr(group, name) for name in NAMES) else DockerSettings()
