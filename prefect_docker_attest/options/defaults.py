"""The settings that are defaults of build options. This module is loaded before Prefect, so it does not import it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from prefect_docker_attest.names import variable

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Defaults:
    """The settings of the group ``docker`` that are defaults of options; ``""`` is unset.

    Attributes:
        platform: of images that name none
        media_types: ``docker`` or ``oci``
        cache_from: entries of ``--cache-from``, separated by white space
        cache_to: entries of ``--cache-to``, separated by white space
        push_from_builder: ``true`` if a builder outside the engine pushes images itself, instead of loading them
    """

    platform: str = ""
    media_types: str = ""
    cache_from: str = ""
    cache_to: str = ""
    push_from_builder: str = ""

    def variables(self) -> list[str]:
        """The variables of those settings that are set."""
        return [variable(name) for name in NAMES if getattr(self, name)]

    def origin(self, option: str) -> str:
        """Who sets an option, by name: the setting's variable, or the option itself."""
        return variable(option) if getattr(self, option) else option

    def without(self, named: Iterable[str]) -> Defaults:
        """Return the defaults without those for options that an image sets itself."""
        return replace(self, **dict.fromkeys(named, ""))


NAMES = tuple(field.name for field in fields(Defaults))
"""The settings, as fields of the group ``docker`` of Prefect's settings."""
