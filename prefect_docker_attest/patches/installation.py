"""Switch Prefect's builds by hand, and back: for programs that do without the ``.pth`` file."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec

from prefect_docker_attest import build_backend, client, startup


def install() -> None:
    """Let Prefect's builds go where ``PREFECT_DOCKER_DISABLE_ATTESTATIONS`` says.

    A second call does nothing. Prefect is imported.

    Raises:
        TypeError: a Prefect of another shape
    """
    client.install(importlib.import_module(startup.DOCKERUTILS))
    backend = next((name for name in startup.BUILD_BACKENDS if find_spec(name)), None)
    if backend:
        build_backend.install(importlib.import_module(backend))


def uninstall() -> None:
    """Let Prefect build as it does without this package; clients that are open keep their build.

    What somebody else has wrapped stays as it is.
    """
    client.uninstall(importlib.import_module(startup.DOCKERUTILS))
    for name in startup.BUILD_BACKENDS:
        if name in sys.modules:
            build_backend.uninstall(sys.modules[name])
