"""Whether the setting is on, as of now; answered with a Prefect too whose settings cannot be read."""

from __future__ import annotations

import functools
import logging
import os

NAME = "PREFECT_DOCKER_DISABLE_ATTESTATIONS"
"""The environment variable, and the setting's name in a profile."""

logger = logging.getLogger("prefect_docker_attest")


def attestations_disabled() -> bool:
    """Whether builds go through buildx without attestations.

    Raises:
        pydantic.ValidationError: the value is no boolean
    """
    try:
        from prefect_docker_attest import settings
    except Exception as error:
        _warn(f"{type(error).__name__}: {error}")
        # What is neither is on: a build that is refused can be repeated, one that went the wrong way is shipped.
        return os.environ.get(NAME, "").strip().lower() not in ("", "0", "false", "f", "no", "n", "off")
    return settings.attestations_disabled()


@functools.cache
def _warn(reason: str) -> None:
    logger.warning(
        "prefect-docker-attest does not know the settings of this version of Prefect (%s): it reads %s from the "
        "environment alone, no profile and no file. Upgrade prefect-docker-attest.",
        reason,
        NAME,
    )
