"""Compares platform names of images and users. Pure."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Other names of architectures, and the default variants (containerd/platforms, database.go).
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm", "armel": "arm"}
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7", "amd64": "v1"}


def normal(platform: str) -> str:
    """Return the normal form of a platform, for example ``linux/arm64/v8`` for ``linux/aarch64``.

    Raises:
        ValueError: the text is not OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT
    """
    words = platform.lower().split("/")
    if not 2 <= len(words) <= 3 or not all(words):  # noqa: PLR2004
        raise ValueError(f"{platform!r} is not a platform. Write OS/ARCHITECTURE, such as linux/amd64")
    system, processor = words[0], _ALIASES.get(words[1], words[1])
    variant = words[2] if len(words) > 2 else _DEFAULT_VARIANTS.get(processor, "")  # noqa: PLR2004
    return "/".join(filter(None, [system, processor, variant]))


def missing(wanted: Iterable[str], present: Iterable[str | None]) -> list[str]:
    """Return the wanted platforms that are not present."""
    known = {_tolerant(platform or "") for platform in present}
    return [platform for platform in wanted if normal(platform) not in known]


def _tolerant(platform: str) -> str:
    with contextlib.suppress(ValueError):  # an image can name its platform in any form
        return normal(platform)
    return ""
