"""Prefect's image builds through ``docker buildx build``, without provenance and SBOM attestations.

``PREFECT_DOCKER_DISABLE_ATTESTATIONS=true``, in the environment or wherever Prefect reads settings,
switches every image that Prefect builds. Nothing needs to be imported for it: a ``.pth`` file wakes
this package when ``prefect`` is first imported.

Where ``.pth`` files are not read (``python -S``, ``pip install --target``, ``PYTHONPATH``, frozen
programs), ``import prefect_docker_attest`` does the same, best before ``prefect``. After ``prefect``
it still switches the builds, but Prefect's settings are complete by then: the value is read
from the environment, ``.env``, ``prefect.toml``, ``pyproject.toml`` and the profile, while ``prefect config``,
``temporary_settings``, ``get_current_settings().docker`` and
``prefect.settings.PREFECT_DOCKER_DISABLE_ATTESTATIONS`` do not know it in that process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect_docker_attest import startup

if TYPE_CHECKING:
    from prefect_docker_attest.by_hand import install, uninstall

    __version__: str

__all__ = ["__version__", "install", "uninstall"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("prefect-docker-attest")
    if name in ("install", "uninstall"):
        from prefect_docker_attest import by_hand

        return getattr(by_hand, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


startup.activate()
