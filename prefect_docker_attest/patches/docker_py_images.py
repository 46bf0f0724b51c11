"""Patches docker-py's ``push``, ``inspect_image`` and ``tag`` for images that their builder has pushed.

`from_builder` remembers these images. If there is no such image, the original methods are called.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect_docker_attest.patches.replacing import replace
from prefect_docker_attest.refusal import build_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_FROM_BUILDER = "prefect_docker_attest.buildx.from_builder"


class _Push(NamedTuple):
    """The parameters of docker-py's ``push``."""

    repository: str
    tag: str | None = None
    stream: bool = False
    auth_config: Mapping[str, Any] | None = None
    decode: bool = False


def install(client: type, is_prefects: Callable[[Any], bool]) -> None:
    """Patch the methods, if the class has them. A second call does nothing.

    Args:
        client: docker-py's class ``APIClient``
        is_prefects: returns whether Prefect has opened a client
    """
    for name, wrap in (
        ("push", _wrap_push),
        ("inspect_image", lambda original: _wrap_inspect(original, is_prefects)),
        ("tag", _wrap_tag),
    ):
        owner = next((part for part in client.__mro__ if name in vars(part)), None)
        if owner is not None:
            replace(owner, name, wrap)


def forget(client: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Forget an image that docker-py builds again.

    Args:
        client: docker-py's low-level client
        args: positional arguments of its ``build``
        kwargs: keyword arguments of its ``build``
    """
    from_builder = _from_builder()
    tag = kwargs.get("tag", args[1] if len(args) > 1 else None)
    if from_builder and isinstance(tag, str):
        from_builder.forget(client, tag)


def _from_builder() -> Any:
    """Return the module that remembers pushed images; `None` if there is no such image."""
    module = sys.modules.get(_FROM_BUILDER)
    # The module is incomplete while another thread imports it.
    remembers_images = getattr(module, "remembers_images", bool)
    return module if remembers_images() else None


def _wrap_push(original: Callable[..., Any]) -> Callable[..., Any]:
    def push(self: Any, *args: Any, **kwargs: Any) -> Any:
        from_builder = _from_builder()
        if from_builder is None or not (call := _read(args, kwargs)):
            return original(self, *args, **kwargs)
        images = from_builder.named(self, call.repository, call.tag)
        if not images:
            return original(self, *args, **kwargs)
        from prefect_docker_attest.buildx import push

        earlier: list[Any] = []
        for tag in from_builder.other_tags(self, call.repository, call.tag, images):
            earlier += original(self, call.repository, tag, stream=True, auth_config=call.auth_config, decode=True)
        return push.push(self, images, call.auth_config, stream=call.stream, decode=call.decode, earlier=earlier)

    return push


def _read(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Push | None:
    try:
        return _Push(*args, **kwargs)
    except TypeError:  # docker-py's method raises it too
        return None


def _wrap_inspect(original: Callable[..., Any], is_prefects: Callable[[Any], bool]) -> Callable[..., Any]:
    def inspect_image(self: Any, *args: Any, **kwargs: Any) -> Any:
        from_builder = _from_builder()
        name = next(iter((*args, *kwargs.values())), None)
        image = from_builder.by_id(self, name) if from_builder and isinstance(name, str) else None
        if image is None:
            return original(self, *args, **kwargs)
        from docker import errors

        missing: errors.NotFound = errors.ImageNotFound("Not Found")
        try:
            found = original(self, *args, **kwargs)
        except errors.NotFound as error:
            missing = error
        else:
            # The image that the engine had before the build is not the one that the caller wants.
            if found["Id"] in image.ids or found["Id"] != image.replaced:
                return found
        message = from_builder.not_in_engine(image)
        if is_prefects(self):  # Prefect would report an error of docker-py as "Docker is not running"
            raise build_error()(message) from missing
        missing.explanation = message
        raise missing

    return inspect_image


def _wrap_tag(original: Callable[..., Any]) -> Callable[..., Any]:
    def tag(self: Any, *args: Any, **kwargs: Any) -> Any:
        from_builder = _from_builder()
        if from_builder is None:
            return original(self, *args, **kwargs)
        call = {**dict(zip(("image", "repository", "tag"), args, strict=False)), **kwargs}
        image, repository = call.get("image"), call.get("repository")
        if isinstance(image, str) and from_builder.by_id(self, image):
            self.inspect_image(image)  # raises an error if the engine's image of that name is an older one
        tagged = original(self, *args, **kwargs)
        from_builder.forget(self, f"{repository}:{call['tag']}" if call.get("tag") else str(repository))
        return tagged

    return tag
