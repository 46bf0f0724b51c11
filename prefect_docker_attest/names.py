"""Names that the whole package uses: those of the settings, and the logger."""

from __future__ import annotations

import logging

SETTING = "PREFECT_DOCKER_DISABLE_ATTESTATIONS"
"""The setting that disables attestations: its environment variable, and its name in Prefect's profiles."""

logger = logging.getLogger("prefect_docker_attest")
"""The package's logger. At level `DEBUG` it shows which builder builds each image, and why."""


def variable(setting: str) -> str:
    """Return the environment variable of a setting, for example ``PREFECT_DOCKER_PLATFORM`` for ``platform``."""
    return f"PREFECT_DOCKER_{setting.upper()}"
