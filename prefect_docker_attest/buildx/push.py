"""Does the work of docker-py's ``APIClient.push`` for an image that its builder has pushed: moves the tag."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.buildx.docker_py_engine import client_credentials
from prefect_docker_attest.images import tagging
from prefect_docker_attest.images.documents import LATER, ImageError
from prefect_docker_attest.images.registry_answers import NotFound, TagIsFixed
from prefect_docker_attest.images.registry_auth import find_credentials, read_credentials
from prefect_docker_attest.names import logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from docker import APIClient

    from prefect_docker_attest.buildx.from_builder import PushedImage

Event = dict[str, Any]
"""One event of docker-py's push output. It has the key ``status``, ``aux`` or ``error``."""


def push(
    api: APIClient,
    images: Sequence[PushedImage],
    auth_config: Mapping[str, Any] | None,
    *,
    stream: bool,
    decode: bool,
    earlier: Iterable[Event] = (),
) -> Iterator[Event] | Iterator[bytes] | str:
    """Put the tags on images that their builder has pushed.

    Args:
        api: docker-py's low-level client
        images: images of one repository, at least one
        auth_config: parameter of docker-py's ``push``
        earlier: events of the engine's push of other tags. No tag is moved if it failed
        stream: parameter of docker-py's ``push``
        decode: parameter of docker-py's ``push``

    Returns:
        the same as docker-py: with ``stream``, a generator of dicts or lines of JSON, else one string. The last event
        of a failed push has the key ``error``.
    """
    events = [*earlier, {"status": f"The push refers to repository [{images[0].name.name}]"}]
    try:
        for image in () if any("error" in event for event in events) else images:
            events += _put_tag(api, image, auth_config)
    except ImageError as error:
        message = "\n".join([str(error), *_explanation(error, image)])
        events.append({"errorDetail": {"message": message}, "error": message})
    if stream and decode:
        return (event for event in events)
    lines = [json.dumps(event) + "\r\n" for event in events]
    return (line.encode() for line in lines) if stream else "".join(lines)


def _explanation(error: ImageError, image: PushedImage) -> list[str]:
    """Return what is in the registry now, and what to do about it if there is certain advice."""
    lines = [f"The builder pushed the image as {image}, but the tag {image.name.tag} was not moved."]
    if isinstance(error, NotFound):
        lines.append("TIP The registry has removed the image. Build the image again.")
    elif isinstance(error, TagIsFixed):
        lines.append("TIP The registry does not let this tag be moved. Build the image under another tag.")
    elif error.tip == LATER:
        lines.append("TIP Push the image again later.")
    elif error.tip:
        lines.append(f"TIP {error.tip.strip()} Then push the image again.")
    return lines


def _put_tag(api: APIClient, image: PushedImage, auth_config: Mapping[str, Any] | None) -> list[Event]:
    name = image.name
    if auth_config is None:
        credentials = find_credentials(name.registry, client_credentials(api))
    else:
        credentials = read_credentials(auth_config)
    size = tagging.put_tag(name, image.digest, credentials)
    logger.debug("The tag %s was put on %s, which its builder pushed", name.tag, image)
    return [
        {"status": "Pushed by the builder", "progressDetail": {}, "id": image.digest.removeprefix("sha256:")[:12]},
        {"status": f"{name.tag}: digest: {image.digest} size: {size}"},
        {"progressDetail": {}, "aux": {"Tag": name.tag, "Digest": image.digest, "Size": size}},
    ]
