"""Runs the command like a user, and builds images to inspect."""

from __future__ import annotations

import json
import os
import sysconfig
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

if TYPE_CHECKING:
    from pathlib import Path

    from engines.private import Engine, Registry

COMMAND = os.path.join(sysconfig.get_path("scripts"), "prefect-docker-attest")


@dataclass(frozen=True)
class Result:
    """The exit code and the output of one run of the command."""

    code: int
    out: str
    err: str
    peak: int
    """The largest amount of memory that it used, in bytes."""

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def text(self) -> str:
        """Standard output as one line, so that tests do not depend on line breaks."""
        return " ".join(self.out.split())


class Run(Protocol):
    """Runs the command with this environment. Variables with the value `None` are removed."""

    def __call__(self, *arguments: str, **environment: str | None) -> Result: ...


@dataclass(frozen=True)
class Images:
    """Builds small images in an engine with the containerd store, and pushes them."""

    registry: Registry
    context: Path

    def build(self, engine: Engine, *flags: str) -> str:
        """Build an image with buildx that is not in the build cache."""
        (self.context / "new").write_text(str(uuid4()))
        name = f"{self.registry.address}/cli/{uuid4().hex[:8]}:v1"
        engine.run("docker", "buildx", "build", "--load", f"--tag={name}", *flags, str(self.context))
        return name

    def push(self, engine: Engine, *flags: str) -> str:
        name = self.build(engine, *flags)
        engine.run("docker", "push", name)
        return name
