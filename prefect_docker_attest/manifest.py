"""What a manifest or an index says of itself. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

INDEX_MEDIA_TYPES = frozenset(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)


def is_index(media_type: str) -> bool:
    """Whether a descriptor of this media type is an image index (Docker: a manifest list)."""
    return media_type in INDEX_MEDIA_TYPES


ATTESTATION = "attestation-manifest"
"""What the annotation ``vnd.docker.reference.type`` says of an attestation's descriptor (moby/buildkit,
docs/attestations/attestation-storage.md)."""


def attestations(index: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The descriptors of an index that are attestations; none of a single manifest."""
    return [
        descriptor
        for descriptor in index.get("manifests") or ()
        if (descriptor.get("annotations") or {}).get("vnd.docker.reference.type") == ATTESTATION
    ]


def image_ids(metadata: Mapping[str, Any]) -> list[str]:
    """The digests of buildx's metadata under one of which an engine holds the image, the likelier first.

    Which one depends on the image store and on the builder's driver; buildx's ``--iidfile`` is wrong for an image
    without attestations in the containerd image store (docker/buildx, build/build.go).
    """
    found = (metadata.get(name) for name in ("containerimage.digest", "containerimage.config.digest"))
    return list(dict.fromkeys(digest for digest in found if digest))
