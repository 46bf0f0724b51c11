"""The options of an image that the setting overrides."""

from __future__ import annotations

import pytest

from prefect_docker_attest.options.table import BuildxOptions


@pytest.mark.parametrize(
    ("provenance", "requested"),
    [(None, False), ("false", False), ("0", False), ("F", False), ("true", True), ("1", True), ("mode=max", True)],
)
def test_only_requested_attestations_are_overruled(provenance: str | None, requested: bool) -> None:
    image = BuildxOptions(context="/", provenance=provenance)
    assert image.requested_attestations == [f"provenance={provenance}"] * requested
    options = image.without_attestations()
    assert options.attestations_disabled
    assert (options.provenance, options.sbom, options.attest) == ("false", "false", ())
