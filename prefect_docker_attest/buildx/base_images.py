"""Warns if a base image exists only for another platform than the requested one.

BuildKit uses such a base image. The config of the result names the requested platform, but the layers contain programs
for the other platform. BuildKit 0.14 and newer (moby/buildkit#4924, Docker 27) show a warning in their progress, but
only with the containerd image store (measured with Docker 28.5). So this module asks the engine for the platforms of
the base image.
"""

from __future__ import annotations

import contextlib
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prefect_docker_attest.buildx.target import Target
    from prefect_docker_attest.options.table import BuildxOptions
    from prefect_docker_attest.platforms import Platform

_BUILDKIT_WARNING = re.compile(r"#\d+ WARN: InvalidBaseImagePlatform: (?P<text>.*)")
_BASE = re.compile(r"#\d+ \[[^]]*\] FROM (?P<name>\S+)@(?P<digest>sha256:[0-9a-f]{64})\s*$")
_PINNED = re.compile(r"^\s*FROM\s+--platform=", re.IGNORECASE | re.MULTILINE)
_PATIENCE = 0.05
"""Seconds that a finished build waits for the engine's answer. `inspect --verify-layers` finds the same problem."""

_known: dict[str, Sequence[Platform]] = {}
"""The platforms of base images by digest. Each image is looked up once in a process."""


class BaseImages:
    """Looks up the base images of one build while the build runs.

    Args:
        target: the engine of the build
        options: options of the build
    """

    def __init__(self, target: Target, options: BuildxOptions) -> None:
        self._target = target
        self._platform = options.platforms[0] if len(options.platforms) == 1 else None
        self._warnings: list[str] = []
        self._lookups: dict[str, tuple[str, threading.Thread]] = {}
        self._looks_up = bool(self._platform and self._platform.is_complete) and not _pins_a_platform(options)

    def read_line(self, line: str) -> None:
        """Read a line of the build's output."""
        if not line.startswith("#"):
            return
        if warning := _BUILDKIT_WARNING.match(line):
            self._warnings.append(warning["text"].strip())
        elif self._looks_up and (base := _BASE.match(line)) and base["digest"] not in self._lookups:
            name, digest = base["name"], base["digest"]
            lookup = threading.Thread(target=self._look_up, args=(name, digest), daemon=True)
            lookup.start()
            self._lookups[digest] = (name, lookup)

    def warnings(self) -> Iterator[str]:
        """Yield warnings for the user. Call it after the build has ended."""
        if self._warnings:
            yield from dict.fromkeys(self._warnings)
            return
        for digest, (name, lookup) in self._lookups.items():
            lookup.join(_PATIENCE)
            platforms = _known.get(digest, ())
            if platforms and self._platform and self._platform.processor not in [one.processor for one in platforms]:
                names = ", ".join(map(str, platforms))
                yield (
                    f"The base image {name} has no variant for {self._platform}, only for {names}. This image names "
                    f"the platform {self._platform}, but contains programs for {names}. Use a base image for "
                    f"{self._platform}. If this is intended, write FROM --platform=... ."
                )

    def _look_up(self, name: str, digest: str) -> None:
        # The look-up can fail although the build works, for example if only the builder has credentials.
        with contextlib.suppress(Exception):
            if digest not in _known:
                _known[digest] = self._target.base_platforms(f"{name}@{digest}")


def _pins_a_platform(options: BuildxOptions) -> bool:
    """Whether the Dockerfile selects another platform for a base image. If it cannot be read, the result is `True`."""
    try:
        file = Path(options.file) if options.file else Path(options.context, "Dockerfile")
        return bool(_PINNED.search(file.read_text(encoding="utf-8", errors="replace")))
    except OSError:
        return True
