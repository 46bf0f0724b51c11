"""Patches docker-py's ``APIClient``: each build of Prefect uses docker-py or docker buildx.

If the engine is Podman, its own builder takes the place of buildx: it adds no attestations, and is used by docker-py.

Since 3.1, all of Prefect's ways to build with docker-py open a client in ``docker_client()`` and call
``client.api.build(...)``: `build_image`, `DockerImage`, `ImageBuilder`, ``flow.deploy`` and prefect-docker's step. A
method of a class is looked up at the call. So it does not matter when a module imported docker-py, and fakes and other
clients are not affected.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.names import ENGINE_VERSION
from prefect_docker_attest.patches import attestation_warning, corruption_warning, decision, docker_py_images
from prefect_docker_attest.patches.caller import image_of_step, is_build, prefect_function, returns_image
from prefect_docker_attest.patches.replacing import is_ours, replace
from prefect_docker_attest.refusal import build_error, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from types import ModuleType

    from prefect_docker_attest.build_settings import BuildSettings

    # For each build that has not ended: its events, and the generator that the caller reads. The dict keeps both alive.
    _Builds = dict[Generator[Any, None, bool], Generator[Any, None, None]]

_BUILDS = "_prefect_docker_attest_builds"
"""The attribute of Prefect's clients that contains their builds."""
_POSITIONAL = (
    "path tag quiet fileobj nocache rm timeout custom_context encoding pull forcerm dockerfile container_limits decode "
    "buildargs gzip shmsize labels cache_from target network_mode squash extra_hosts platform isolation "
    "use_config_proxy"
).split()
_PLATFORM = _POSITIONAL.index("platform")


def install(module: ModuleType) -> None:
    """Patch `APIClient`. A second call does nothing.

    Args:
        module: the module ``docker.api.client``

    Raises:
        TypeError: this version of docker-py is not supported. Nothing is changed
    """
    client: Any = getattr(module, "APIClient", None)
    owner = next((part for part in getattr(client, "__mro__", ()) if "build" in vars(part)), None)
    if client is None or owner is None:
        raise TypeError(
            f"{module.__name__} has no class APIClient with a method build: this version of docker-py is not supported"
        )
    replace(client, "__init__", _wrap_init)
    replace(client, "close", lambda original: _wrap_close(client, original))
    # The method is replaced in the class that defines it, `BuildApiMixin`, so that tests can still mock it there.
    replace(owner, "build", _wrap_build)
    asking = next((part for part in client.__mro__ if "version" in vars(part)), None)
    if asking is not None:
        replace(asking, "version", _wrap_version)
    docker_py_images.install(client, _is_prefects)


def is_installed(module: ModuleType) -> bool:
    """Whether `install` has patched the `APIClient` of this module, and no other package has replaced it since."""
    return is_ours(getattr(getattr(module, "APIClient", None), "build", None))


def _is_prefects(client: Any) -> bool:
    return _BUILDS in getattr(client, "__dict__", {})


def _wrap_init(original: Callable[..., None]) -> Callable[..., None]:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        if prefect_function() == "docker_client":
            vars(self)[_BUILDS] = {}
        original(self, *args, **kwargs)

    return __init__


def _wrap_version(original: Callable[..., Any]) -> Callable[..., Any]:
    def version(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = original(self, *args, **kwargs)
        if _is_prefects(self):  # docker-py asks when it makes a client, and keeps only the API's version
            vars(self)[ENGINE_VERSION] = answer
        return answer

    return version


def _wrap_close(client: Any, original: Callable[..., None]) -> Callable[..., None]:
    inherited = "close" not in vars(client)

    def close(self: Any) -> None:
        """End the builds whose output was not read completely, for example because of an exception."""
        builds: _Builds = getattr(self, "__dict__", {}).get(_BUILDS, {})
        while builds:
            events, _ = builds.popitem()
            with contextlib.suppress(ValueError):  # another thread reads the events now
                events.close()
        if inherited and isinstance(self, client):
            super(client, self).close()
        else:
            original(self)

    return close


def _wrap_build(original: Callable[..., Any]) -> Callable[..., Any]:
    def build(self: Any, *args: Any, **kwargs: Any) -> Any:
        builds = getattr(self, "__dict__", {}).get(_BUILDS)
        # A user can pass a client to Prefect. Its builds are treated like those of Prefect's own clients.
        if builds is None and not is_build(prefect_function()):
            docker_py_images.forget(self, args, kwargs)
            return original(self, *args, **kwargs)
        buildx_only, wants_buildx = _buildx_options(kwargs)
        decided = decision.decide(
            "docker-py",
            wants_buildx=wants_buildx,
            find_podman=lambda settings: _find_podman(self, kwargs.get("builder"), settings),
        )
        if decided.podman:
            docker_py_images.forget(self, args, kwargs)
            return _build_with_podman(self, original, _by_name(original, args, kwargs, buildx_only), decided)
        if not decided.use_buildx:
            docker_py_images.forget(self, args, kwargs)
            platform = kwargs.get("platform", args[_PLATFORM] if len(args) > _PLATFORM else None)
            corruption_warning.warn_of_corruption(self, platform, decided.settings)
            return original(self, *args, **{name: value for name, value in kwargs.items() if name not in buildx_only})
        return _build_with_buildx(self, _by_name(original, args, kwargs, buildx_only), builds, decided)

    return build


def _buildx_options(kwargs: Mapping[str, Any]) -> tuple[frozenset[str], bool]:
    """Return the names of buildx-only options, and whether the options of this call need buildx."""
    try:
        from prefect_docker_attest.options.docker_py_options import BUILDX_ONLY, wants_buildx
    except ImportError:  # the package was uninstalled while this process runs
        return frozenset(), False
    return BUILDX_ONLY, wants_buildx(kwargs)


def _by_name(
    original: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], buildx_only: frozenset[str]
) -> dict[str, Any]:
    """Return the options of a call by name.

    Raises:
        TypeError: as docker-py raises it for unknown or missing options
    """
    signature = inspect.signature(original)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        # The original method is another package's wrapper.
        return {**dict(zip(_POSITIONAL, args, strict=False)), **kwargs}
    options = {name: value for name, value in kwargs.items() if name not in buildx_only}
    bound = signature.bind(None, *args, **options).arguments
    del bound[next(iter(bound))]  # self
    return {**kwargs, **bound}


def _build_with_buildx(
    api: Any, options: Mapping[str, Any], builds: _Builds | None, decided: decision.Decision
) -> Generator[Any, None, None]:
    try:
        from prefect_docker_attest.buildx import docker_py_build
        from prefect_docker_attest.buildx.docker_py_engine import DockerPyEngine
    except ImportError as error:  # the package was uninstalled while this process runs
        raise refusal(error, decided.settings.variables()) from error
    with decision.prefect_errors():
        engine = DockerPyEngine(api) if builds is not None else DockerPyEngine.of_user(api)
        if decided.by_defaults:
            attestation_warning.warn_of_attestations(engine, decided.settings)
        events = docker_py_build.build(
            engine, options, decided.settings, later_name=image_of_step(), returns_image=returns_image()
        )
    builds = {} if builds is None else builds
    output = builds[events] = _read(events, builds)
    return output


def _find_podman(api: Any, builder: object, settings: BuildSettings) -> str:
    """Return the version of Podman, if its own builder must build the image; otherwise ``""``.

    Args:
        api: docker-py's low-level client
        builder: the option ``builder`` of the image
        settings: the settings of the build
    """
    try:
        from prefect_docker_attest.buildx import podman_build
        from prefect_docker_attest.buildx.docker_py_engine import DockerPyEngine
    except ImportError as error:  # the package was uninstalled while this process runs
        raise refusal(error, settings.variables()) from error
    with decision.prefect_errors():
        return podman_build.find_podman(DockerPyEngine(api), builder)


def _build_with_podman(
    api: Any, original: Callable[..., Any], options: Mapping[str, Any], decided: decision.Decision
) -> Generator[Any, None, None]:
    from prefect_docker_attest.buildx import podman_build
    from prefect_docker_attest.buildx.docker_py_engine import DockerPyEngine

    with decision.prefect_errors():
        return podman_build.build(original, DockerPyEngine(api), options, decided.settings, decided.podman)


def _read(events: Generator[Any, None, bool], builds: _Builds) -> Generator[Any, None, None]:
    try:
        finished = yield from events
    finally:
        builds.pop(events, None)
    if not finished:
        raise build_error()(
            "The build was stopped: its client was closed before its output was read.\n"
            "TIP Read the output inside the `with docker_client()` block."
        )
