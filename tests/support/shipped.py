"""The command as users run it, and images for it to inspect."""

from __future__ import annotations

import json
import os
import sysconfig
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

if TYPE_CHECKING:
    from pathlib import Path

    from private_docker import Engine, Registry

COMMAND = os.path.join(sysconfig.get_path("scripts"), "prefect-docker-attest")


@dataclass(frozen=True)
class Said:
    """What one run of the command ended with, and printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def text(self) -> str:
        """Standard output as one line: where it was wrapped does not matter."""
        return " ".join(self.out.split())


class Run(Protocol):
    """Runs the command with this environment; variables that are `None` are left out."""

    def __call__(self, *arguments: str, **environment: str | None) -> Said: ...


@dataclass(frozen=True)
class Images:
    """Builds small images in an engine with containerd store, and pushes them."""

    registry: Registry
    context: Path

    def build(self, engine: Engine, *flags: str) -> str:
        """Build by buildx what nobody has built before."""
        (self.context / "new").write_text(str(uuid4()))
        name = f"{self.registry.address}/cli/{uuid4().hex[:8]}:v1"
        engine.run("docker", "buildx", "build", "--load", f"--tag={name}", *flags, str(self.context))
        return name

    def push(self, engine: Engine, *flags: str) -> str:
        name = self.build(engine, *flags)
        engine.run("docker", "push", name)
        return name
