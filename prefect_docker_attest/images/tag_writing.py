"""Moves a tag in a registry only if nobody else has moved it since it was read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect_docker_attest.images.documents import ImageError
from prefect_docker_attest.images.registry_answers import TagIsFixed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prefect_docker_attest.images.registry import Repository
    from prefect_docker_attest.images.strip_plan import Document


def write_tag(repository: Repository, tag: str, documents: Sequence[Document], seen: Mapping[str, str | None]) -> None:
    """Write documents, and let a tag name the last one. Then read the tag again, and compare.

    The registry's API has no way to do this in one step, so another writer can still win in the moment between two
    requests. Then the comparison fails.

    Args:
        repository: the repository
        tag: the tag
        documents: each one follows those that it lists itself
        seen: digests that tags named when they were read, `None` for a tag that did not exist. The tags are asked again
            directly before the tag is written

    Raises:
        ImageError: a tag has moved, or the registry refuses a document
    """
    *parts, new = documents
    for part in parts:
        repository.put(part.digest, part.media_type, part.content)
    for name, digest in seen.items():
        now = repository.tagged(name)
        if now != digest:
            raise ImageError(
                f"The tag {name} was moved after it had been read: it names {_shown(now)} instead of {_shown(digest)}. "
                f"The tag {tag} was not written.",
                "Run the command again.",
                retryable=True,
            )
    try:
        repository.put(tag, new.media_type, new.content)
    except TagIsFixed as error:
        raise TagIsFixed(f"{error} The tag was not moved.", "Write another tag: `--tag NEW`.") from error
    _compare(repository, tag, new.digest)


def _compare(repository: Repository, tag: str, digest: str) -> None:
    try:
        now = repository.tagged(tag)
    except ImageError as error:
        raise ImageError(
            f"The tag {tag} was written, but cannot be read again. {error}", error.tip, retryable=error.retryable
        ) from error
    if now != digest:
        raise ImageError(
            f"The tag {tag} was put on {digest}, but names {_shown(now)} now.",
            "Another program may have moved it. Look at the image with `prefect-docker-attest inspect`.",
        )


def _shown(digest: str | None) -> str:
    return digest or "nothing"
