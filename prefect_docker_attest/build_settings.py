"""The settings of one build. Only the standard library is imported, because start-up code uses this module."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.names import SETTING, variable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DEFAULTS = ("platform", "media_types", "compression", "cache_from", "cache_to", "push_from_builder")
"""The settings that are defaults of build options, as fields of `BuildSettings` and of Prefect's group ``docker``."""


def _unknown_source(_setting: str) -> str:
    return "unknown source"


@dataclass(frozen=True)
class BuildSettings:
    """The settings of the group ``docker``, as they are when a build is called. Texts are not checked yet.

    Attributes:
        disable_attestations: whether images are built without attestations; `None` if no source has a value
        platform: platform of images that name none; ``""`` is unset, as for the other texts
        media_types: ``docker`` or ``oci``
        compression: ``zstd``, ``gzip`` or ``uncompressed``, and a level such as ``zstd:3``
        cache_from: entries of ``--cache-from``, separated by white space
        cache_to: entries of ``--cache-to``, separated by white space
        push_from_builder: whether a builder outside the engine pushes images itself, instead of loading them
        find_source: returns the source of a setting, such as ``environment``. It reads files, so it is called only for
            messages
    """

    disable_attestations: bool | None = None
    platform: str = ""
    media_types: str = ""
    compression: str = ""
    cache_from: str = ""
    cache_to: str = ""
    push_from_builder: bool = False
    find_source: Callable[[str], str] = field(default=_unknown_source, compare=False, repr=False)

    @property
    def defaults(self) -> tuple[str, ...]:
        """The names of those `DEFAULTS` that are set."""
        return tuple(name for name in DEFAULTS if getattr(self, name))

    def variables(self) -> list[str]:
        """Return the variables of the settings that require buildx; empty if none does."""
        return [*([SETTING] if self.disable_attestations else []), *map(variable, self.defaults)]

    def origin(self, option: str) -> str:
        """Return who sets an option, by name: the setting's variable, or the option itself."""
        return variable(option) if getattr(self, option) else option

    def without(self, names: Iterable[str]) -> BuildSettings:
        """Return the settings without the defaults for options that an image sets itself."""
        unset: dict[str, Any] = {name: False if name == "push_from_builder" else "" for name in names}
        return replace(self, **unset)
