"""The last line of a build's output."""

from __future__ import annotations

import re
from typing import Any

import pytest

from prefect_docker_attest.buildx.closing_line import closing_line
from prefect_docker_attest.buildx.metadata import Metadata
from prefect_docker_attest.options.table import BuildxOptions
from prefect_docker_attest.platforms import Platform

MANIFEST = Metadata(media_type="application/vnd.docker.distribution.manifest.v2+json")
INDEX = Metadata(media_type="application/vnd.oci.image.index.v1+json")
GRAPHDRIVER = Metadata()
TWO = (Platform.of_text("linux/amd64"), Platform.of_text("linux/arm64"))
SETTING = "PREFECT_DOCKER_DISABLE_ATTESTATIONS"


@pytest.mark.parametrize("metadata", [MANIFEST, GRAPHDRIVER])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, f"Built by docker buildx without attestations ({SETTING}, profile 'local')"),
        ({"push": True}, f"Built and pushed by docker buildx without attestations ({SETTING}, profile 'local')"),
        ({"pushed_to": "x"}, f"Built and pushed by docker buildx without attestations ({SETTING}, profile 'local')"),
        ({"platforms": TWO}, f"Built by docker buildx with attestations disabled ({SETTING}, profile 'local')"),
    ],
)
def test_the_setting_and_its_source_are_named(metadata: Metadata, options: dict[str, Any], expected: str) -> None:
    wanted = BuildxOptions(context="/", **options).without_attestations()
    assert closing_line(wanted, metadata, "profile 'local'") == expected


@pytest.mark.parametrize(
    ("options", "metadata", "expected"),
    [
        ({}, INDEX, " with attestations (docker buildx adds them by default)"),
        ({"sbom": "false"}, INDEX, " with attestations (docker buildx adds them by default)"),
        ({"provenance": "mode=max"}, INDEX, " with attestations (provenance=mode=max)"),
        ({"provenance": "false"}, MANIFEST, " without attestations (provenance=False)"),
        ({"provenance": "false", "sbom": "false"}, GRAPHDRIVER, " without attestations (provenance=False, sbom=False)"),
        ({"media_types": "docker"}, MANIFEST, " without attestations"),
        ({"provenance": "false", "sbom": "true"}, GRAPHDRIVER, ""),
        ({"sbom": "false"}, GRAPHDRIVER, ""),
        ({"platforms": TWO}, INDEX, ""),
    ],
)
def test_with_the_setting_off_it_claims_only_what_the_build_shows(
    options: dict[str, Any], metadata: Metadata, expected: str
) -> None:
    assert closing_line(BuildxOptions(context="/", **options), metadata, "") == f"Built by docker buildx{expected}"


def test_docker_py_does_not_take_it_for_the_line_with_the_id() -> None:
    # docker/models/images.py searches each event with this pattern, and uses the last match.
    line = closing_line(BuildxOptions(context="/").without_attestations(), MANIFEST, "profile 'sha256:abc'")
    assert not re.search(r"(^Successfully built |sha256:)([0-9a-f]+)$", f"{line}\n")
