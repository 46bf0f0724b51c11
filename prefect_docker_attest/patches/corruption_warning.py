"""Warns before the classic builder makes an image that is certain to be wrong, if nobody has decided about the setting.

On the containerd image store, the classic builder takes the layers of a base image for the engine's own platform and
the config of the requested one (moby/moby#47823). Such a build and its push succeed, and the image cannot be started.
"""

from __future__ import annotations

import platform as machine
import threading
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.names import SETTING, logger

if TYPE_CHECKING:
    from prefect_docker_attest.build_settings import BuildSettings

# Processors that also run programs of another one.
_ALSO_RUN = {"amd64": ("386",), "arm64": ("arm",)}
_SOCKET = "unix://"

_warned = threading.Event()


def warn_of_corruption(api: Any, platform: object, settings: BuildSettings) -> None:
    """Log the warning, at most once in a process. It raises nothing, and asks the engine only if it may be necessary.

    Args:
        api: docker-py's low-level client, whose classic builder will build the image
        platform: the option ``platform`` of the build
        settings: the settings of the build
    """
    decided = settings.disable_attestations is not None
    if decided or _warned.is_set() or not platform or not isinstance(platform, str):
        return
    try:
        engine = _engine_of_corrupt_image(api, platform)
    except Exception:  # the build shows the error of the engine
        return
    if engine:
        _warn_once(platform, engine)


def _engine_of_corrupt_image(api: Any, platform: str) -> str:
    """Return the platform of an engine that will make a corrupt image; ``""`` if the image will not be corrupt."""
    from prefect_docker_attest.buildx.docker_py_engine import DockerPyEngine
    from prefect_docker_attest.platforms import Platform

    wanted = Platform.of_user(platform)
    engine = DockerPyEngine(api)
    here = Platform.of_document("linux", machine.machine())
    if engine.address.startswith(_SOCKET) and here and _runs(here, wanted):
        return ""  # an engine behind a socket is usually on this machine, so it is not asked
    native = engine.platform
    if native is None or _runs(native, wanted) or engine.podman or not engine.uses_containerd_store:
        return ""
    return str(native)


def _runs(engine: Any, wanted: Any) -> bool:
    """Whether an engine runs a platform natively, or fails to build for it, so that no image can be corrupt."""
    if wanted.os and wanted.os != engine.os:
        return True
    return wanted.architecture in ("", engine.architecture, *_ALSO_RUN.get(engine.architecture, ()))


def _warn_once(platform: str, engine: str) -> None:
    if _warned.is_set():
        return
    _warned.set()
    logger.warning(
        "This image for platform=%r will be corrupt, unless its base image is for that platform only: on the "
        "containerd image store, the Docker Engine's classic builder uses the base layers for %s. Such an image can be "
        "pushed, but not pulled (`wrong diff id calculated on extraction`) or started. Set %s=true to build it with "
        "docker buildx, or =false to keep this build and to silence this warning.",
        platform,
        engine,
        SETTING,
    )
