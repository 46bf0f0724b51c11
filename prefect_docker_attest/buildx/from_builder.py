"""Remembers images that a builder outside the engine has pushed itself, instead of loading them into the engine.

The build pushes the image without a tag. docker-py's push of that name, in the same process, then puts the tag on it.
So a deployment that does not push moves no tag.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from docker import utils

from prefect_docker_attest.buildx import docker_cli
from prefect_docker_attest.buildx.docker_py_engine import DockerPyEngine
from prefect_docker_attest.buildx.docker_py_engine import engine_address as address
from prefect_docker_attest.images.documents import ImageError
from prefect_docker_attest.images.reference import Reference
from prefect_docker_attest.names import logger, variable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docker import APIClient

    from prefect_docker_attest.buildx.metadata import Metadata
    from prefect_docker_attest.options.table import BuildxOptions

VARIABLE = variable("push_from_builder")

_SHORTEST_ID = 12  # characters of the ids that docker shows


@dataclass(frozen=True)
class PushedImage:
    """An image that its builder has pushed.

    Attributes:
        name: name of the image, with the tag that it will get
        digest: digest of its manifest or index
        ids: digests that can be its id in an engine
        engine: address of the engine for which it was built
        replaced: id of the engine's image of that name when the build started; `None` if there was none
    """

    name: Reference
    digest: str
    ids: tuple[str, ...]
    engine: str
    replaced: str | None

    def __str__(self) -> str:
        return f"{self.name.name}@{self.digest}"


_pushed: dict[tuple[str, str, str, str | None], PushedImage] = {}


def reason_to_load(options: BuildxOptions, docker: Sequence[str]) -> str:
    """Return why an image must be loaded into the engine; ``""`` if its builder can push it.

    Args:
        options: options of the build
        docker: the docker CLI, with the flags that select its engine
    """
    if not options.tags:
        return "it is built without a tag"
    host, slash, _ = options.tags[0].partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):  # docker's own rule
        return f"the name {options.tags[0]} has no registry"
    try:
        Reference.parse(options.tags[0])
    except ImageError as error:
        return str(error)
    try:
        builder = docker_cli.find_builder(docker, options.builder)
    except OSError:  # the build fails with a better error
        return "docker cannot be started"
    if builder is None:
        return "`docker buildx inspect` does not show the builder's driver"
    if builder.is_engine:
        return "the builder is the engine's own"
    if builder.nodes > 1 and options.multi_platform:
        # buildx merges the images of several nodes under a tag, by default `latest` (docker/buildx, build/build.go).
        return "the nodes of the builder cannot push several platforms without a tag"
    return ""


def remembers_images() -> bool:
    """Whether there is an image that its builder has pushed."""
    return bool(_pushed)


def remember(api: APIClient, tag: str, metadata: Metadata, replaced: str | None) -> PushedImage:
    """Remember an image that its builder has pushed, until it is built again.

    Args:
        api: docker-py's low-level client, which was used for the build
        tag: name of the image
        metadata: metadata of the build
        replaced: see `PushedImage`
    """
    image = PushedImage(
        Reference.parse(tag),
        metadata.digest,
        tuple(metadata.image_ids),
        address(api),
        replaced,
    )
    _pushed[_key(image.engine, image.name)] = image
    return image


def forget(api: APIClient, tag: str) -> None:
    """Forget an image of this name, because it is built again."""
    try:
        _pushed.pop(_key(address(api), Reference.parse(tag)), None)
    except ImageError:
        return


def named(api: APIClient, repository: str, tag: str | None) -> list[PushedImage]:
    """Return the images that a push must tag: those that are newer than the engine's images of the same names.

    Args:
        api: docker-py's low-level client
        repository: parameter of docker-py's ``push``, which can contain the tag
        tag: parameter of docker-py's ``push``; without a tag, the push includes all tags of the repository
    """
    if not tag:
        repository, tag = utils.parse_repository_tag(repository)
    try:
        wanted = Reference.parse(f"{repository}:{tag or 'latest'}")
    except ImageError:
        return []
    engine = address(api)
    found = [_pushed.get(_key(engine, wanted))] if tag else list(_pushed.values())
    return [
        image
        for image in found
        if image is not None
        and _key(image.engine, image.name)[:3] == _key(engine, wanted)[:3]
        and _is_newest(api, image)
    ]


def other_tags(api: APIClient, repository: str, tag: str | None, images: Sequence[PushedImage]) -> list[str]:
    """Return the tags that a push is about, but that the engine must push.

    Args:
        api: docker-py's low-level client
        repository: parameter of docker-py's ``push``
        tag: parameter of docker-py's ``push``
        images: as `named` returns them for this push, at least one
    """
    if tag or utils.parse_repository_tag(repository)[1]:
        return []
    found = set()
    for image in api.images(name=repository):
        for name in image["RepoTags"] or ():
            with contextlib.suppress(ImageError):  # "<none>:<none>"
                found.add(Reference.parse(name))
    wanted, pushed = images[0].name, {image.name.tag for image in images}
    # The list can contain the images' names in other repositories.
    own = [name for name in found if (name.registry, name.repository) == (wanted.registry, wanted.repository)]
    return sorted(str(name.tag) for name in own if name.tag not in pushed)


def by_id(api: APIClient, name: str) -> PushedImage | None:
    """Return the pushed image with this name or id; `None` if there is none."""
    hexadecimal = name.removeprefix("sha256:")
    engine = address(api)
    for image in list(_pushed.values()):
        ids = [found.removeprefix("sha256:") for found in image.ids]
        if image.engine == engine and len(hexadecimal) >= _SHORTEST_ID and any(i.startswith(hexadecimal) for i in ids):
            return image
    try:
        return _pushed.get(_key(engine, Reference.parse(name)))
    except ImageError:
        return None


def not_in_engine(image: PushedImage) -> str:
    """Return the error message for an image that is missing in the engine because its builder pushed it."""
    return (
        f"{image.name.name}:{image.name.tag} is not in the Docker Engine, because its builder pushed it as {image}.\n"
        f"TIP Set {VARIABLE}=false to load images into the engine, or pull the image after the push."
    )


def _key(engine: str, name: Reference) -> tuple[str, str, str, str | None]:
    return engine, name.registry, name.repository, name.tag


def _is_newest(api: APIClient, image: PushedImage) -> bool:
    present = DockerPyEngine(api).image_id(f"{image.name.name}:{image.name.tag}")
    if present in (None, image.replaced, *image.ids):
        return True
    logger.debug("The engine has a newer image than %s, so the engine pushes", image)
    return False
