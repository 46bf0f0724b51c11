"""Puts a tag on an image that is in a registry: uploads its unchanged manifest again, under the tag.

``docker buildx imagetools create`` would create an index around a single manifest, and put attestations back that the
registry lists as referrers (docker/buildx#3433).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect_docker_attest.images import documents
from prefect_docker_attest.images.registry import Repository

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect_docker_attest.images.reference import Reference


def put_tag(image: Reference, digest: str, credentials: Mapping[str, str]) -> int:
    """Put the tag of an image on the manifest or index with this digest.

    Args:
        image: name of the image, with the tag
        digest: digest of the manifest or index
        credentials: as `registry_auth.find_credentials` returns them

    Returns:
        size of the manifest or index in bytes

    Raises:
        NotFound: the registry does not have the manifest
        ImageError: it cannot be read, or the registry refuses the tag
    """
    with Repository(image, credentials, tip="", retries=True) as repository:
        media_type, content = repository.document(f"manifests/{digest}", digest)
        repository.put(str(image.tag), documents.media_type(content, media_type), content)
    return len(content)
