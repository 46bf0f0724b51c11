"""Finds the function of Prefect that a call comes from."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_PREFECT = ("prefect.", "prefect_docker.")
_STEP = ("prefect_docker.deployments.steps", "build_docker_image")


def prefect_frame() -> FrameType | None:
    """Return the innermost frame of Prefect or prefect-docker on the stack; `None` if there is none.

    A generator is on the stack only while it runs. So inside a ``with docker_client()`` block of a flow, the innermost
    frame is not `docker_client` but the function of Prefect that called the flow.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 other functions take much longer than microseconds
    while frame is not None and not str(frame.f_globals.get("__name__")).startswith(_PREFECT):
        frame = frame.f_back
    return frame


def prefect_function() -> str:
    """Return the name of the function of `prefect_frame`; ``""`` if there is none."""
    frame = prefect_frame()
    return "" if frame is None else frame.f_code.co_name


def is_build(function: str) -> bool:
    """Whether the function of Prefect with this name builds an image.

    These functions are `build_image`, `_build_image_once`, `build_docker_image`, `_build_docker_image_docker_py` and
    `_buildx_build_once`. Prefect's other functions with "build" in their name call no user code that could build.
    """
    return "build" in function


def returns_image() -> bool:
    """Whether the build was called by docker-py's ``client.images.build``, which returns an image of the engine."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 as above
    while frame is not None and not str(frame.f_globals.get("__name__")).startswith(_PREFECT):
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == ("docker.models.images", "build"):
            return True
        frame = frame.f_back
    return False


def image_of_step() -> str:
    """Return the name that prefect-docker's step will give the image that is built now; ``""`` outside the step.

    The step builds without a name. The tag in the result is empty if the step has not chosen it yet.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 as above
    while frame is not None:
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == _STEP:
            return f"{frame.f_locals['image_name']}:{frame.f_locals['tag'] or ''}"
        frame = frame.f_back
    return ""
