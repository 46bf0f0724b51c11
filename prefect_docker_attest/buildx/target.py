"""The engine of a build: docker-py's, or that of the docker CLI's current context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from prefect_docker_attest.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from prefect_docker_attest.platforms import Platform


class Target(Protocol):
    """The engine in which an image is built. Facts are asked once for each build, when they are needed."""

    @property
    def docker(self) -> tuple[str, ...]:
        """The docker CLI, with the flags that select this engine."""

    @property
    def name(self) -> str:
        """The name of the engine in messages."""

    @property
    def platform(self) -> Platform | None:
        """The engine's own platform; `None` if it is not known."""

    @property
    def uses_containerd_store(self) -> bool | None:
        """Whether the engine uses the containerd image store; `None` if it is not known."""

    def image_id(self, name: str) -> str | None:
        """Return the id of the engine's image with this name or digest; `None` if it has no such image.

        Raises:
            BuildFailed: the engine does not answer, or its socket refuses the request
        """

    def lists_attestations(self, image: str) -> bool:
        """Whether the engine lists attestations of the index with this id. Engines before Docker 28 list nothing."""

    def base_platforms(self, name: str) -> Sequence[Platform] | None:
        """Return the platforms of an image in a registry.

        They are empty if they are not known, and `None` if the engine has found the image, but names no platform.
        """

    def proxies(self) -> Mapping[str, str]:
        """Return the proxies that the configuration adds to build arguments."""


def no_answer(target: Target, request: str) -> Failure:
    """Return the failure of a build whose engine did not answer a request, for example because it was stopped."""
    note = f"There was no answer from {target.name} to {request}."
    return Failure(notes=(note,), tip="Check that Docker runs: `docker info`. Then build again.")


def is_containerd_store(info: Mapping[str, Any]) -> bool:
    """Whether an engine uses the containerd image store.

    Args:
        info: response of the engine to ``GET /info``
    """
    status = info.get("DriverStatus")
    return isinstance(status, list) and ["driver-type", "io.containerd.snapshotter.v1"] in status


def podman_version(version: Mapping[str, Any]) -> str:
    """Return the version of Podman, which supports docker-py but has no BuildKit; ``""`` for another engine.

    Args:
        version: response of the engine to ``GET /version``
    """
    components = version.get("Components")
    for component in components if isinstance(components, list) else ():
        if isinstance(component, dict) and "Podman" in str(component.get("Name")):
            return str(component.get("Version") or version.get("Version") or "of unknown version")
    return ""
