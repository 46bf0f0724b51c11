"""Warns if buildx builds an image only because of settings that do not disable attestations, and so adds some."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from prefect_docker_attest.names import SETTING, logger

if TYPE_CHECKING:
    from prefect_docker_attest.build_settings import BuildSettings
    from prefect_docker_attest.buildx.target import Target

_warned = threading.Event()


def warn_of_attestations(target: Target, settings: BuildSettings) -> None:
    """Log the warning, at most once in a process.

    Args:
        target: the engine of the build
        settings: the settings that require buildx
    """
    from prefect_docker_attest.options.table import parse_bool

    decided = settings.disable_attestations is not None
    if _warned.is_set() or decided or parse_bool(os.environ.get("BUILDX_NO_DEFAULT_ATTESTATIONS", "")):
        return
    if not settings.push_from_builder and not target.uses_containerd_store:
        return
    _warned.set()
    logger.warning(
        "%s: images are built by docker buildx, which adds attestations to them. Some platforms reject such images. "
        "Set %s=true to build without attestations, or =false to build with attestations and without this warning.",
        " and ".join(settings.variables()),
        SETTING,
    )
