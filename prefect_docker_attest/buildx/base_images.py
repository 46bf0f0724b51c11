"""Warns if a base image is for another platform than the requested one.

BuildKit uses such a base image. The config of the result names the requested platform, but the layers contain programs
for the other platform. BuildKit 0.14 and newer (moby/buildkit#4924, Docker 27) show a warning in their progress, but
only with the containerd image store (measured with Docker 28.5). So this module asks the engine for the platforms of
the base image.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from prefect_docker_attest.buildx.stage_platforms import pinned_platform

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prefect_docker_attest.buildx.builder import Builder
    from prefect_docker_attest.buildx.target import Target
    from prefect_docker_attest.options.table import BuildxOptions
    from prefect_docker_attest.platforms import Platform

_BUILDKIT_WARNING = re.compile(r"#\d+ WARN: InvalidBaseImagePlatform: (?P<text>.*)")
_BASE = re.compile(r"#\d+ \[[^]]*\] FROM (?P<name>\S+)@(?P<digest>sha256:[0-9a-f]{64})\s*$")
_PINS = re.compile(r"--platform=", re.IGNORECASE)
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
        self._platforms = [platform for platform in options.platforms if platform.is_complete]
        self._buildkit_warnings: list[str] = []
        self._lookups: dict[str, tuple[str, threading.Thread]] = {}
        self._options = options
        self._dockerfile = _dockerfile(options) if self._platforms else None
        self._pins = bool(_PINS.search(self._dockerfile or ""))
        self._looks_up = self._dockerfile is not None and len(self._platforms) == 1 and not self._pins

    def read_line(self, line: str) -> None:
        """Read a line of the build's output."""
        if not line.startswith("#"):
            return
        if warning := _BUILDKIT_WARNING.match(line):
            self._buildkit_warnings.append(warning["text"].strip())
        elif self._looks_up and (base := _BASE.match(line)) and base["digest"] not in self._lookups:
            name, digest = base["name"], base["digest"]
            lookup = threading.Thread(target=self._look_up, args=(name, digest), daemon=True)
            lookup.start()
            self._lookups[digest] = (name, lookup)

    def warnings(self, builder: Builder | None) -> Iterator[str]:
        """Yield warnings for the user. Call it after the build has ended.

        Args:
            builder: the builder; `None` if it is not known
        """
        for platform, pinned in self._pinned(builder) if self._pins else ():
            yield (
                f"FROM --platform={pinned} in the Dockerfile overrides platform={platform}: this image names the "
                f"platform {platform}, but contains programs for {pinned}. Remove --platform from FROM, or build "
                f"for {pinned}."
            )
        if self._buildkit_warnings:
            yield from dict.fromkeys(self._buildkit_warnings)
            return
        for digest, (name, lookup) in self._lookups.items():
            lookup.join(_PATIENCE)
            (platform,) = self._platforms
            bases = _known.get(digest, ())
            if bases and platform.processor not in [base.processor for base in bases]:
                names = ", ".join(map(str, bases))
                yield (
                    f"The base image {name} has no variant for {platform}, only for {names}. This image names the "
                    f"platform {platform}, but contains programs for {names}. Use a base image for {platform}."
                )

    def _pinned(self, builder: Builder | None) -> Iterator[tuple[Platform, Platform]]:
        """Yield each requested platform with the other one that the Dockerfile sets for the built stage."""
        native = None
        if builder and builder.is_engine:
            with contextlib.suppress(Exception):  # the engine does not answer: a warning is not worth an error
                native = self._target.platform
        for platform in self._platforms:
            pinned = pinned_platform(
                self._dockerfile or "", self._options.target, self._options.build_args, platform, native
            )
            if pinned and pinned.processor != platform.processor:
                yield platform, pinned

    def _look_up(self, name: str, digest: str) -> None:
        # The look-up can fail although the build works, for example if only the builder has credentials.
        with contextlib.suppress(Exception):
            if digest not in _known:
                platforms = self._target.base_platforms(f"{name}@{digest}")
                _known[digest] = _platforms_in_config(f"{name}@{digest}") if platforms is None else platforms


def _platforms_in_config(name: str) -> Sequence[Platform]:
    """Return the platform in the config of an image, which is read from its registry.

    Args:
        name: name of the image, with its digest

    Raises:
        Exception: the registry does not answer, or the image is an index
    """
    from prefect_docker_attest.images.reference import Reference
    from prefect_docker_attest.images.registry import Repository
    from prefect_docker_attest.platforms import Platform

    reference = Reference.parse(name)
    with Repository(reference) as repository:
        _, manifest = repository.document(f"manifests/{reference.digest}", reference.digest)
        digest = json.loads(manifest)["config"]["digest"]
        _, content = repository.document(f"blobs/{digest}", digest)
    config = json.loads(content)
    platform = Platform.of_document(config["os"], config["architecture"], config.get("variant"))
    return [platform] if platform else []


def _dockerfile(options: BuildxOptions) -> str | None:
    """Return the text of the Dockerfile; `None` if it cannot be read here."""
    try:
        path = options.local_dockerfile
        return Path(path).read_text(encoding="utf-8-sig", errors="replace") if path else None
    except (OSError, ValueError):
        return None
