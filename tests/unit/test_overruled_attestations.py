"""The options of an image that the setting overrides, and the warning about them."""

from __future__ import annotations

import logging

import pytest

from prefect_docker_attest.buildx.run import without_attestations
from prefect_docker_attest.options.table import BuildxOptions


@pytest.mark.parametrize(
    ("provenance", "warned"),
    [(None, False), ("false", False), ("0", False), ("F", False), ("true", True), ("1", True), ("mode=max", True)],
)
def test_only_requested_attestations_cause_a_warning(
    caplog: pytest.LogCaptureFixture, provenance: str | None, warned: bool
) -> None:
    with caplog.at_level(logging.WARNING, logger="prefect_docker_attest"):
        options = without_attestations(BuildxOptions(context="/", provenance=provenance))
    assert (options.provenance, options.sbom, options.attest) == ("false", "false", ())
    assert [f"provenance={provenance}" in record.getMessage() for record in caplog.records] == [True] * warned
