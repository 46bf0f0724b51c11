"""Names that the whole package uses: those of the settings, and the logger. It also reads the word of a switch."""

from __future__ import annotations

import logging

SETTING = "PREFECT_DOCKER_DISABLE_ATTESTATIONS"
"""The setting that disables attestations: its environment variable, and its name in Prefect's profiles."""

ENGINE_VERSION = "_prefect_docker_attest_engine_version"
"""The attribute of a docker-py client that contains its engine's response to ``GET /version``."""

SELECT_BUILDER = "select a builder outside Podman: `docker buildx create --driver=remote --use tcp://HOST:PORT`"
"""What gives Podman's users a BuildKit."""

logger = logging.getLogger("prefect_docker_attest")
"""The package's logger. At level `DEBUG` it shows which builder builds each image, and why."""


def variable(setting: str) -> str:
    """Return the environment variable of a setting, for example ``PREFECT_DOCKER_PLATFORM`` for ``platform``."""
    return f"PREFECT_DOCKER_{setting.upper()}"


def is_on(text: str) -> bool:
    """Whether the text of a setting means on. Blanks around it and one pair of quotes do not count.

    Empty, ``0``, ``false``, ``f``, ``no``, ``n`` and ``off`` are off, as pydantic reads them. Any other value counts as
    on: a refused build can be retried, a bad image cannot be unshipped.
    """
    return bare(text).lower() not in ("", "0", "false", "f", "no", "n", "off")


def bare(text: str) -> str:
    """Return the text of a setting without the blanks and the pair of quotes that shells and ``--env-file`` leave."""
    text = text.strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" and text[0] not in text[1:-1]
    return text[1:-1].strip() if quoted else text
