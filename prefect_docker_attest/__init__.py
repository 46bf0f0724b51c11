"""Builds Prefect's images with ``docker buildx build``, without provenance and SBOM attestations.

The setting ``PREFECT_DOCKER_DISABLE_ATTESTATIONS=true`` turns this on for all images that Prefect builds. Users do not
need to import this package: a start-up file of Python loads it on the first ``import prefect``.

Some Python processes do not read start-up files: ``python -S``, ``pip install --target``, ``PYTHONPATH`` and frozen
programs. They need ``import prefect_docker_attest``, best before ``import prefect``. After ``import prefect`` it is too
late to register the setting with Prefect. Builds still use buildx, and the setting is still read from the environment,
``.env``, ``prefect.toml``, ``pyproject.toml`` and the profile. But in that process ``prefect config``,
``temporary_settings``, ``get_current_settings().docker`` and
``prefect.settings.PREFECT_DOCKER_DISABLE_ATTESTATIONS`` do not know the setting.

The names in `__all__` are public. All other names can change in any version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect_docker_attest import startup

if TYPE_CHECKING:
    from prefect_docker_attest.errors import BuildFailed, OptionError
    from prefect_docker_attest.patches.installation import install, uninstall

    __version__: str

__all__ = ["BuildFailed", "OptionError", "__version__", "install", "uninstall"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("prefect-docker-attest")
    if name in ("install", "uninstall"):
        from prefect_docker_attest.patches import installation

        return getattr(installation, name)
    if name in ("BuildFailed", "OptionError"):
        from prefect_docker_attest import errors

        return getattr(errors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


startup.activate()
