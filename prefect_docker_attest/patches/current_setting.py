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

    Where the setting is not registered (see the package's docstring), it is read from Prefect's sources alone.

    Raises:
        pydantic.ValidationError: the value is no boolean
    """
    try:
        from prefect.settings import get_current_settings

        from prefect_docker_attest.settings import DockerSettings
    except Exception as error:
        _warn(f"{type(error).__name__}: {error}")
        # What is neither is on: a build that is refused can be repeated, one that went the wrong way is shipped.
        return os.environ.get(NAME, "").strip().lower() not in ("", "0", "false", "f", "no", "n", "off")
    registered = getattr(get_current_settings(), "docker", None)
    value = getattr(registered, "disable_attestations", None)
    return bool(DockerSettings().disable_attestations if value is None else value)


@functools.cache
def _warn(reason: str) -> None:
    logger.warning(
        "prefect-docker-attest does not know the settings of this version of Prefect (%s): it reads %s from the "
        "environment alone, no profile and no file. Upgrade prefect-docker-attest.",
        reason,
        NAME,
    )
