"""Decides for each image whether docker buildx builds it, or the builder that Prefect uses without this package."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect_docker_attest.names import SETTING, logger, variable
from prefect_docker_attest.patches import build_settings, current_setting, unseen_setting
from prefect_docker_attest.refusal import build_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect_docker_attest.options.defaults import Defaults


class Decision(NamedTuple):
    """Which builder builds one image.

    Attributes:
        use_buildx: whether this package builds the image with ``docker buildx build``
        disable_attestations: value of the setting: whether the image must not have attestations
        defaults: the other settings, which are defaults of options that the image does not set
        by_defaults: whether these other settings are the only reason for using buildx
    """

    use_buildx: bool
    disable_attestations: bool
    defaults: Defaults
    by_defaults: bool

    def settings(self) -> list[str]:
        """Return the variables of the settings that require buildx; empty if none does."""
        return [*([SETTING] if self.disable_attestations else []), *self.defaults.variables()]


def decide(prefect_builder: str, *, wants_buildx: bool = False) -> Decision:
    """Decide which builder builds an image, from the current settings. The decision is logged at debug level.

    Args:
        prefect_builder: name of the builder that Prefect uses without this package, for the log
        wants_buildx: whether the image has buildx-only options

    Raises:
        BuildError: Prefect's error, if the value of a setting is not a boolean
    """
    try:
        disable_attestations = current_setting.disable_attestations()
    except ValueError as error:
        validation: Any = error  # pydantic's ValidationError. This module is loaded before pydantic.
        name = str(validation.errors(include_input=False)[0]["loc"][-1])
        value, source = current_setting.source(name)
        raise build_error()(
            f"{variable(name)}={value!r} ({source}) is not a boolean.\nTIP Set it to true or false."
        ) from error
    if not disable_attestations:
        unseen_setting.warn()
    defaults = build_settings.read()
    set_defaults = defaults.variables()
    required = disable_attestations or wants_buildx
    by_defaults = bool(set_defaults) and not required
    decision = Decision(required or by_defaults, disable_attestations, defaults, by_defaults)
    if logger.isEnabledFor(logging.DEBUG):
        builder = "docker buildx" if decision.use_buildx else prefect_builder
        options = ", and this image has buildx-only options" if wants_buildx else ""
        if set_defaults:
            options = f", and {', '.join(set_defaults)} is set{options}"
        value = str(disable_attestations).lower()
        logger.debug("Building with %s: %s=%s (%s)%s", builder, SETTING, value, _source(disable_attestations), options)
    return decision


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


def _source(value: bool) -> str:
    try:
        from prefect_docker_attest.patches.settings import DockerSettings

        if DockerSettings().disable_attestations == value:
            return current_setting.source()[1]
    except Exception as error:  # an error in a log line must not stop the build
        return type(error).__name__
    return "temporary_settings, or a source that has changed"
