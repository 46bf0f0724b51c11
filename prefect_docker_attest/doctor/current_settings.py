"""Reads the settings in the way that a build reads them, and where each value comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect_docker_attest.names import SETTING
from prefect_docker_attest.platforms import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from prefect_docker_attest.build_settings import BuildSettings


@dataclass(frozen=True)
class CurrentSettings:
    """The settings.

    Attributes:
        values: values of the settings
        sources: sources of ``disable_attestations`` and of the defaults that are set, by setting
        error: error message of a build with these values; ``""`` if they are valid
    """

    values: BuildSettings
    sources: Mapping[str, str]
    error: str


class InvalidSettingsError(Exception):
    """Prefect refuses a value of its settings. The text shows the reasons, and the value of `SETTING`."""


def read_current_settings(prefect: Future[None]) -> CurrentSettings:
    """Read the settings.

    Args:
        prefect: the result of `imports.import_prefect`, whose exceptions this raises too

    Raises:
        InvalidSettingsError: Prefect refuses a value
        Exception: Prefect cannot read its settings
    """
    prefect.result()
    from pydantic import ValidationError

    from prefect_docker_attest.patches import settings_reader

    try:
        values = settings_reader.read_settings()
    except ValidationError as error:
        # The error's own text is not shown: it quotes values, which can be secrets.
        reasons = [f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors(include_input=False)]
        value, source = settings_reader.source_of("disable_attestations")
        seen = f"{SETTING} is {value!r} ({source})"
        raise InvalidSettingsError(f"Prefect refuses its settings ({'; '.join(reasons)}); {seen}") from error
    sources = {name: values.find_source(name) for name in ("disable_attestations", *values.defaults)}
    return CurrentSettings(values, sources, _error(values))


def _error(values: BuildSettings) -> str:
    from prefect_docker_attest.errors import OptionError
    from prefect_docker_attest.options import default_values
    from prefect_docker_attest.options.table import BuildxOptions

    options = BuildxOptions(context="/", tags=("image:tag",))
    try:
        default_values.apply_defaults(values, options, "", lambda: Platform.of_text("linux/amd64"))
    except OptionError as refused:
        return str(refused)
    return ""
