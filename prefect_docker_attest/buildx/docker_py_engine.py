"""Reads facts from an engine's ``info`` and ``version``, and its address. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from docker import APIClient


def uses_containerd_store(info: Mapping[str, Any]) -> bool:
    """Whether an engine uses the containerd image store.

    Args:
        info: response of the engine to ``GET /info``
    """
    status = info.get("DriverStatus")
    return isinstance(status, list) and ["driver-type", "io.containerd.snapshotter.v1"] in status


def is_podman(version: Mapping[str, Any]) -> bool:
    """Whether an engine is Podman, which supports docker-py but has no BuildKit.

    Args:
        version: response of the engine to ``GET /version``
    """
    components = version.get("Components")
    return isinstance(components, list) and any(
        isinstance(component, dict) and "Podman" in str(component.get("Name")) for component in components
    )


def address(api: APIClient) -> str:
    """Return the address of a docker-py client's engine, such as ``unix:///var/run/docker.sock``."""
    # docker-py's own address of a socket is http+docker://localhost.
    socket = getattr(getattr(api, "_custom_adapter", None), "socket_path", None)
    return f"unix://{socket}" if socket else str(api.base_url)
