"""Installs and removes the patches in a program that does not use the start-up files."""

from __future__ import annotations

from prefect_docker_attest import startup
from prefect_docker_attest.patches.replacing import restore


def install() -> None:
    """Patch Prefect's image builds, so that the settings of this package have an effect.

    After this, ``PREFECT_DOCKER_DISABLE_ATTESTATIONS`` and the other settings decide for each build whether docker-py
    or ``docker buildx build`` is used. It also works if ``PREFECT_DOCKER_ATTEST_AUTOLOAD=0`` has disabled the patches.
    A second call does nothing. docker-py and python-on-whales are not imported; if they are not loaded yet, they are
    patched when they are imported.

    Raises:
        TypeError: the loaded version of docker-py or python-on-whales is not supported
        Exception: a module of this package cannot be imported, for example because it was removed
    """
    startup.enable(True)
    for name in startup.PATCHES:
        if name in startup.failures:
            raise startup.failures[name]


def uninstall() -> None:
    """Remove the patches, so that Prefect builds images as without this package.

    Builds that are running are not stopped, and the settings stay registered with Prefect. If another package has
    wrapped a patched method since, that method keeps its patch.
    """
    startup.enable(False)
    restore()
