"""Media types, platforms and attestations in manifests and indexes. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MANIFEST_KINDS = {
    "application/vnd.oci.image.manifest.v1+json": "OCI manifest",
    "application/vnd.docker.distribution.manifest.v2+json": "Docker manifest",
}
"""Media types of manifests, with the names that messages show."""

INDEX_KINDS = {
    "application/vnd.oci.image.index.v1+json": "OCI index",
    "application/vnd.docker.distribution.manifest.list.v2+json": "Docker manifest list",
}
"""Media types of indexes, with the names that messages show."""

CONFIG_MEDIA_TYPES = frozenset(
    (
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    )
)
"""Media types of an image's config. A manifest with another config, such as a Helm chart, is not an image."""


def is_index(media_type: str) -> bool:
    """Whether this is the media type of an image index (Docker: a manifest list)."""
    return media_type in INDEX_KINDS


_OCI_LAYER = re.compile(r"application/vnd\.oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+.*)?")
_DOCKER_LAYER = re.compile(r"application/vnd\.docker\.image\.rootfs\.(foreign\.)?diff\.tar(\.gzip)?")
DOCKER_ZSTD_LAYER = "application/vnd.docker.image.rootfs.diff.tar.zstd"
"""Media type of a layer that containerd 2 knows, but not containerd 1.7."""


def is_layer(media_type: str) -> bool:
    """Whether engines know this media type of a layer (containerd, core/images/mediatypes.go)."""
    # containerd ignores words after a "+" that it does not know.
    return bool(_OCI_LAYER.fullmatch(media_type) or _DOCKER_LAYER.fullmatch(media_type.partition("+")[0]))


def is_decompressed(media_type: str) -> bool:
    """Whether engines decompress a layer of this media type. Of several words after a "+", the last one counts."""
    base, _, words = media_type.partition("+")
    if _DOCKER_LAYER.fullmatch(base) or base == DOCKER_ZSTD_LAYER:
        return not words
    return max(words.split("+")) in ("gzip", "zstd")


ATTESTATION = "attestation-manifest"
"""Value of the annotation ``vnd.docker.reference.type`` in an attestation's descriptor (moby/buildkit,
docs/attestations/attestation-storage.md)."""


def attestations(index: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the descriptors of an index that are attestations. A single manifest has none."""
    return [
        descriptor
        for descriptor in index.get("manifests") or ()
        if (descriptor.get("annotations") or {}).get("vnd.docker.reference.type") == ATTESTATION
    ]


def predicate_kind(predicate_type: str) -> str:
    """Return ``provenance`` or ``SBOM`` for a known predicate type, else the predicate type itself."""
    for kind, word in (("provenance", "slsa.dev/provenance"), ("SBOM", "spdx.dev"), ("SBOM", "cyclonedx.org")):
        if word in predicate_type:
            return kind
    return predicate_type
