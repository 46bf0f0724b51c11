"""The name of an image, split into its parts. docker-py's own functions read it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from docker import auth, utils
from docker import errors as docker_errors

from prefect_docker_attest.images.documents import ImageError

if TYPE_CHECKING:
    from typing_extensions import Self

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_IPV6 = re.compile(r"\[[\da-f:]+\]", re.ASCII)


@dataclass(frozen=True)
class Reference:
    """The parts of an image's name.

    Attributes:
        name: name as the user wrote it, without tag and digest
        registry: registry, such as ``docker.io``; docker stores credentials under this name
        repository: name of the image in the registry
        tag: tag; ``latest`` if the name has neither tag nor digest, `None` if it has only a digest
        digest: ``sha256:<64 hexadecimal digits>``; `None` if the name has no digest
    """

    name: str
    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the name of an image.

        Raises:
            ImageError: the text is not a valid name
        """
        name, digest = utils.parse_repository_tag(text) if "@" in text else (text, None)
        name, tag = utils.parse_repository_tag(name)
        try:
            registry, repository = auth.resolve_repository_name(name)
        except (docker_errors.InvalidRepository, IndexError):
            registry = repository = ""
        if not _is_valid(text, registry, repository, tag, digest):
            raise ImageError(
                f"{text!r} is not a valid image name.",
                "Write [REGISTRY/]NAME[:TAG][@sha256:DIGEST], with NAME in lower case.",
            )
        if registry == "docker.io" and "/" not in repository:
            repository = f"library/{repository}"
        return cls(name, registry, repository, tag or (None if digest else "latest"), digest)


def _is_valid(text: str, registry: str, repository: str, tag: str | None, digest: str | None) -> bool:
    # docker-py's pattern does not match IPv6 addresses, and accepts a line break at the end.
    host = _IPV6.sub("localhost", registry.lower(), count=1)
    name = f"{host}/{repository}:{'latest' if tag is None else tag}"
    if not text.isprintable() or text.count("@") > 1 or not utils.match_tag(name):
        return False
    return digest is None or bool(_DIGEST.fullmatch(digest))
