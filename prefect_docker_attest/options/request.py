"""What a caller asks for: one build, as both ways of Prefect to build translate their options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from prefect_docker_attest.build_settings import DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect_docker_attest.options.table import BuildxOptions


@dataclass(frozen=True)
class BuildRequest:
    """One build that a caller asks for.

    Attributes:
        options: options for buildx
        own: names of the `DEFAULTS` whose options the image sets itself
        stdin: build context or Dockerfile for buildx's standard input; `None` if there is none
        idle_timeout: seconds without output after which the build is stopped; `None` for no limit
        config_proxies: whether the proxies in the docker CLI's configuration become build arguments
        replaced_proxies: names of proxies that a build argument replaces, in lower case
        warnings: for the user
    """

    options: BuildxOptions
    own: tuple[str, ...] = ()
    stdin: IO[bytes] | None = None
    idle_timeout: float | None = None
    config_proxies: bool = True
    replaced_proxies: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()


def own_defaults(options: BuildxOptions, given: Mapping[str, object]) -> tuple[str, ...]:
    """Return those of `DEFAULTS` for which an image sets the option itself.

    Args:
        options: options of the image
        given: the options of the call by name, as docker-py or python-on-whales names them
    """
    by_other_names = {
        "platform": options.platforms,
        "media_types": options.media_types,
        "compression": options.compression,
    }
    return tuple(name for name in DEFAULTS if given.get(name) is not None or by_other_names.get(name))
