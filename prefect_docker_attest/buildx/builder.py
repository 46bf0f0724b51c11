"""A builder of buildx, as ``docker buildx inspect`` describes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect_docker_attest.platforms import Platform

if TYPE_CHECKING:
    from typing_extensions import Self

_PROGRESS = re.compile(r'#0 building with "(?P<name>[^"]+)" instance using (?P<driver>\S+) driver')
_FIELD = re.compile(r"^(Name|Driver|Endpoint|Status|Error|Platforms): +(\S.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Builder:
    """A builder.

    Attributes:
        name: name of the builder
        driver: driver of the builder, such as ``remote``; ``docker`` for the engine's own builder
        nodes: number of its nodes; 0 if it is not known
        endpoints: addresses of its nodes
        platforms: platforms of all nodes, in the order of their names
        error: why docker cannot use the builder; ``""`` if it can
        is_running: whether no node is inactive
    """

    name: str
    driver: str
    nodes: int = 0
    endpoints: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = ()
    error: str = ""
    is_running: bool = True

    @classmethod
    def parse(cls, output: str) -> Self | None:
        """Parse the output of ``docker buildx inspect``; return `None` if it does not name a builder and its driver."""
        general, _, nodes = output.partition("\nNodes:")
        about = dict(reversed(_FIELD.findall(general)))
        if not {"Name", "Driver"} <= about.keys():
            return None
        values: dict[str, list[str]] = {}
        for name, value in _FIELD.findall(nodes):
            values.setdefault(name, []).append(value.strip())
        names = {name.strip("* ") for line in values.get("Platforms", ()) for name in line.split(",")}
        return cls(
            about["Name"],
            about["Driver"],
            len(values.get("Name", ())),
            tuple(values.get("Endpoint", ())),
            tuple(platform for name in sorted(names) if (platform := Platform.of_text(name))),
            about.get("Error") or next(iter(values.get("Error", ())), ""),
            "inactive" not in values.get("Status", ()),
        )

    @classmethod
    def of_progress(cls, line: str) -> Self | None:
        """Return the builder that a line of a build's output names; `None` if it names none."""
        named = _PROGRESS.match(line)
        return cls(named["name"], named["driver"]) if named else None

    @property
    def is_engine(self) -> bool:
        """Whether this is the engine's own builder."""
        return self.driver == "docker"

    @property
    def is_substitute(self) -> bool:
        """Whether buildx takes this builder in the place of an engine whose socket offers no BuildKit.

        Such a builder has the name of its endpoint, a docker context. Users cannot create one of this name.
        """
        return not self.is_engine and self.endpoints[:1] == (self.name,)

    @property
    def is_outside(self) -> bool:
        """Whether a user has chosen this builder, so that it is neither the engine's own nor a substitute for it."""
        return not self.is_engine and not self.is_substitute

    def __str__(self) -> str:
        return f"builder {self.name}, driver {self.driver}"
