"""The checks that decide the exit code of ``inspect``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect_docker_attest.platforms import NotAPlatformError, Platform

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prefect_docker_attest.images.result import Inspection
    from prefect_docker_attest.layer_compression import Method


@dataclass(frozen=True)
class Checks:
    """What an image must have to pass.

    Attributes:
        attestations: whether it must have no attestations
        corruption: whether all its layers must be sound
        programs: whether its programs must be for its platform
        platforms: platforms that it must have
        compressions: compressions that no layer must have
    """

    attestations: bool
    corruption: bool
    programs: bool
    platforms: Sequence[Platform]
    compressions: Sequence[Method] = ()

    @property
    def read_layers(self) -> bool:
        """Whether the checks need the layers."""
        return self.corruption or self.programs

    def missing(self, inspection: Inspection) -> list[Platform]:
        """Return the expected platforms that an image lacks."""
        present = [image.platform for image in inspection.images]
        return [platform for platform in self.platforms if not any(map(platform.matches, present))]

    def wrong_compressions(self, inspection: Inspection) -> list[str]:
        """Return a sentence about each image with layers of a compression that it must not have, or that is unknown."""
        sentences = []
        for image in inspection.images if self.compressions else ():
            methods = [layer.compression for layer in image.layers]
            if found := [method for method in (*self.compressions, "unknown") if method in methods]:
                name = image.platform or image.digest
                sentences.append(f"{name} has layers with the compression {' and '.join(dict.fromkeys(found))}.")
        return sentences

    def failures(self, inspection: Inspection) -> Iterator[str]:
        """Yield why an image does not pass the checks."""
        for platform in self.missing(inspection):
            yield f"There is no image for {platform}."
        yield from self.wrong_compressions(inspection)
        if self.attestations and inspection.attestations:
            yield "The image has attestations."
        for image in inspection.images:
            name = image.platform or image.digest
            if self.corruption and image.state != "sound":
                yield f"{name} is {image.state}: {image.detail}"
            if self.programs and not image.programs.can_start:
                yield f"{name} has {image.programs.state} programs: {image.programs.detail}"


def expected_platform(text: str) -> Platform:
    """Parse a platform that a user expects. It names an operating system and an architecture.

    Raises:
        ValueError: the text is not such a platform
    """
    try:
        platform = Platform.of_user(text)
        nearest = "" if platform.is_local else text
    except NotAPlatformError as error:
        platform, nearest = None, error.nearest
    if platform and platform.is_complete:
        return platform
    example = Platform.of_user(nearest or "amd64").completed(Platform("linux", "amd64"))
    raise ValueError(f"{text!r} is not a platform. Write OS/ARCHITECTURE, such as {example}.")
