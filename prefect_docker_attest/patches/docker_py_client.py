"""The seam: the client of Prefect's ``docker_client()`` decides, when a build is called, who builds."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import ModuleType

    from docker import DockerClient


def install(dockerutils: ModuleType) -> None:
    """Switch the builds of every client that Prefect's ``docker_client()`` opens from now on.

    Modules that bound the function's name before get the new one. A second call does nothing.

    Args:
        dockerutils: ``prefect.utilities.dockerutils``

    Raises:
        TypeError: a Prefect without ``docker_client``; nothing is changed
    """
    original = getattr(dockerutils, "docker_client", None)
    if hasattr(original, "opens_buildx"):
        return
    if not callable(original):
        raise TypeError(f"{dockerutils.__name__} has no function docker_client: this version of Prefect is not known")
    _rebind(original, _opening_buildx(original))


def uninstall(dockerutils: ModuleType) -> None:
    """Undo `install`, in every module, unless somebody has wrapped it; clients that are open keep their build."""
    ours: Any = getattr(dockerutils, "docker_client", None)
    # Somebody's wrapper of ours has our mark too (functools.wraps copies it), but not itself for a mark.
    if ours and vars(ours).get("opens_buildx") is ours:
        _rebind(ours, ours.__wrapped__)


def _rebind(old: object, new: object) -> None:
    # `from prefect.utilities.dockerutils import docker_client` has bound it in Prefect's and users' modules.
    for module in list(sys.modules.values()):
        # Asked for its attributes, a module that is loaded lazily would be loaded, or fail to.
        with contextlib.suppress(AttributeError):
            namespace = object.__getattribute__(module, "__dict__")
            for name in [name for name, value in list(namespace.items()) if value is old]:
                setattr(module, name, new)


def _opening_buildx(original: Callable[..., contextlib.AbstractContextManager[DockerClient]]) -> Any:
    @functools.wraps(original)
    @contextlib.contextmanager
    def docker_client(*args: Any, **kwargs: Any) -> Generator[DockerClient, None, None]:
        # Leaving the client ends the builds that its caller has dropped half-way, as by an exception.
        with original(*args, **kwargs) as client, contextlib.ExitStack() as builds:
            api: Any = client.api
            api.build = _deciding(api, api.build, builds)
            yield client

    marked: Any = docker_client
    marked.__wrapped__ = original
    marked.opens_buildx = marked
    return marked


def _deciding(api: Any, original: Callable[..., Any], builds: contextlib.ExitStack) -> Callable[..., Any]:
    @functools.wraps(original)
    def build(*args: Any, **kwargs: Any) -> Any:
        from prefect_docker_attest import docker_py_options, switch

        disabled = switch.attestations_disabled()
        if not disabled and not docker_py_options.wants_buildx(kwargs):
            return original(*args, **{k: v for k, v in kwargs.items() if k not in docker_py_options.BUILDX_ONLY})
        from prefect_docker_attest import docker_py

        ours = {name: kwargs.pop(name) for name in docker_py_options.BUILDX_ONLY & kwargs.keys()}
        given = inspect.signature(original).bind(*args, **kwargs).arguments
        return builds.enter_context(
            contextlib.closing(docker_py.build(api, {**given, **ours}, attestations=not disabled))
        )

    return build
