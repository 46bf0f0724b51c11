"""The last line of a build's output: who built the image, and whether it has attestations. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect_docker_attest.images import manifest
from prefect_docker_attest.names import SETTING
from prefect_docker_attest.options.table import parse_bool

if TYPE_CHECKING:
    from prefect_docker_attest.buildx.metadata import Metadata
    from prefect_docker_attest.options.table import BuildxOptions


def closing_line(options: BuildxOptions, metadata: Metadata, source: str) -> str:
    """Return the line, without a line end. It claims nothing about attestations that the build does not show.

    Args:
        options: options of the build
        metadata: buildx's metadata about the image, which `result_checks` has checked
        source: the source of the setting that disables attestations, such as ``environment``; ``""`` if it is off
    """
    verb = "Built and pushed" if options.push or options.pushed_to else "Built"
    if options.attestations_disabled:
        # Not every engine shows whether the index of several platforms contains attestations.
        outcome = " with attestations disabled" if options.multi_platform else " without attestations"
        reason = f"{SETTING}, {source}"
    else:
        outcome, reason = _seen(options, metadata)
    return f"{verb} by docker buildx{outcome}{f' ({reason})' if reason else ''}"


def _seen(options: BuildxOptions, metadata: Metadata) -> tuple[str, str]:
    """Return what the result of a build shows about attestations, and which options are the reason."""
    if options.multi_platform:
        return "", ""
    if manifest.is_index(metadata.media_type):
        return " with attestations", ", ".join(options.requested_attestations) or "docker buildx adds them by default"
    given = {"provenance": options.provenance, "sbom": options.sbom}
    turned_off = [f"{name}=False" for name, value in given.items() if value and parse_bool(value) is False]
    # With the graphdriver store there is no media type.
    if metadata.media_type or ("provenance=False" in turned_off and not options.requested_attestations):
        return " without attestations", ", ".join(turned_off)
    return "", ""
