"""Decides for each image whether docker buildx builds it, or the builder that Prefect uses without this package."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect_docker_attest.names import SETTING, logger, variable
from prefect_docker_attest.patches import late_settings, settings_reader
from prefect_docker_attest.refusal import build_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prefect_docker_attest.build_settings import BuildSettings


class Decision(NamedTuple):
    """Which builder builds one image.

    Attributes:
        use_buildx: whether this package builds the image with ``docker buildx build``
        settings: the settings of this build
        by_defaults: whether settings other than `SETTING` are the only reason for using buildx
        podman: version of Podman, whose own builder builds the image in the place of buildx; ``""`` if it does not
    """

    use_buildx: bool
    settings: BuildSettings
    by_defaults: bool
    podman: str = ""


def decide(
    prefect_builder: str,
    *,
    wants_buildx: bool = False,
    find_podman: Callable[[BuildSettings], str] = lambda _settings: "",
) -> Decision:
    """Decide which builder builds an image, from the current settings. The decision is logged at debug level.

    Args:
        prefect_builder: name of the builder that Prefect uses without this package, for the log
        wants_buildx: whether the image has buildx-only options
        find_podman: returns the version of Podman, if its own builder must do what buildx does elsewhere; otherwise
            ``""``. It is called only if the settings or the image need more than Prefect's builder

    Raises:
        BuildError: Prefect's error, if the value of a setting is not a boolean
    """
    try:
        settings = settings_reader.read_settings()
    except ValueError as error:
        validation: Any = error  # pydantic's ValidationError. This module is loaded before pydantic.
        name = str(validation.errors(include_input=False)[0]["loc"][-1])
        if name not in ("disable_attestations", "push_from_builder"):  # another setting of Prefect
            raise
        value, source = settings_reader.source_of(name)
        raise build_error()(
            f"{variable(name)}={value!r} is not true or false ({source}).\nTIP Set it to true or false."
        ) from error
    if not settings.disable_attestations:
        late_settings.warn_of_late_settings()
    required = settings.disable_attestations or wants_buildx
    by_defaults = bool(settings.defaults) and not required
    takes_over = bool(required or by_defaults)
    podman = find_podman(settings) if takes_over else ""
    decision = Decision(takes_over and not podman, settings, by_defaults, podman)
    if logger.isEnabledFor(logging.DEBUG):
        _log(decision, prefect_builder, wants_buildx=wants_buildx)
    return decision


def _log(decision: Decision, prefect_builder: str, *, wants_buildx: bool) -> None:
    settings = decision.settings
    builder = "docker buildx" if decision.use_buildx else prefect_builder
    if decision.podman:
        builder = f"the own builder of Podman {decision.podman}"
    reasons = f", and {', '.join(map(variable, settings.defaults))} is set" if settings.defaults else ""
    reasons += ", and this image has buildx-only options" if wants_buildx else ""
    value = str(bool(settings.disable_attestations)).lower()
    source = settings.find_source("disable_attestations")
    logger.debug("Building with %s: %s=%s (%s)%s", builder, SETTING, value, source, reasons)


@contextlib.contextmanager
def prefect_errors() -> Iterator[None]:
    """Convert this package's errors to Prefect's current ``BuildError``: a reload of its module makes a new class."""
    from prefect_docker_attest.errors import BuildFailed, OptionError

    try:
        yield
    except (BuildFailed, OptionError) as error:
        present = build_error()
        if isinstance(error, present):
            raise
        raise present(str(error)) from error
