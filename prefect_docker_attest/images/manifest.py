"""What a manifest or an index says of itself. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MANIFEST_KINDS = {
    "application/vnd.oci.image.manifest.v1+json": "OCI manifest",
    "application/vnd.docker.distribution.manifest.v2+json": "Docker manifest",
}
"""Media types of what describes one image, with their names for people."""

INDEX_KINDS = {
    "application/vnd.oci.image.index.v1+json": "OCI index",
    "application/vnd.docker.distribution.manifest.list.v2+json": "Docker manifest list",
}
"""Media types of what lists images, with their names for people."""

CONFIG_MEDIA_TYPES = frozenset(
    (
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    )
)
"""Media types of an image's config; a manifest with another one is no image (a Helm chart, a signature)."""


def is_index(media_type: str) -> bool:
    """Whether a descriptor of this media type is an image index (Docker: a manifest list)."""
    return media_type in INDEX_KINDS


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


def attested_image(attestation: Mapping[str, Any]) -> str | None:
    """The digest of the image that an attestation's descriptor speaks of."""
    return (attestation.get("annotations") or {}).get("vnd.docker.reference.digest")


def predicate_types(attestation: Mapping[str, Any]) -> tuple[str, ...]:
    """What an attestation's manifest attests: in-toto's predicate types, such as ``https://spdx.dev/Document``."""
    layers = attestation.get("layers") or ()
    found = ((layer.get("annotations") or {}).get("in-toto.io/predicate-type") for layer in layers)
    return tuple(one for one in found if one)


def predicate_kind(predicate_type: str) -> str:
    """``provenance``, ``SBOM``, or the predicate type itself."""
    for kind, word in (("provenance", "slsa.dev/provenance"), ("SBOM", "spdx.dev"), ("SBOM", "cyclonedx.org")):
        if word in predicate_type:
            return kind
    return predicate_type


def platform_name(platform: Mapping[str, Any] | None) -> str | None:
    """``linux/arm64/v8`` for the platform of a descriptor or of a config; ``None`` where it names none."""
    words = [(platform or {}).get(name) for name in ("os", "architecture", "variant")]
    return "/".join(word for word in words if word) if all(words[:2]) else None


def image_ids(metadata: Mapping[str, Any]) -> list[str]:
    """The digests of buildx's metadata under one of which an engine holds the image, the likelier first.

    Which one depends on the image store and on the builder's driver; buildx's ``--iidfile`` is wrong for an image
    without attestations in the containerd image store (docker/buildx, build/build.go).
    """
    found = (metadata.get(name) for name in ("containerimage.digest", "containerimage.config.digest"))
    return list(dict.fromkeys(digest for digest in found if digest))
