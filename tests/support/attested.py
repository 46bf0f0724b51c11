"""Publishes images with attestations by a registry's API, as BuildKit makes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from support.pushing import MANIFEST, descriptor, push_blob, push_image, push_manifest, tar_layer

INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_IN_TOTO = "application/vnd.in-toto+json"
_EMPTY = "application/vnd.oci.empty.v1+json"
_ARTIFACT = "application/vnd.docker.attestation.manifest.v1+json"  # BuildKit 0.32 and newer
PROVENANCE = "https://slsa.dev/provenance/v1"


@dataclass(frozen=True)
class Attested:
    """An image with one attestation for each platform.

    Attributes:
        name: name with tag
        digest: digest of the index
        images: entries of the index for the images
        attestations: entries of the index for the attestations
    """

    name: str
    digest: str
    images: list[dict[str, Any]]
    attestations: list[dict[str, Any]]


def publish(
    address: str,
    name: str,
    *architectures: str,
    tag: str | None = "v1",
    docker: bool = False,
    artifacts: bool = False,
    attested: bool = True,
    layer: bytes | None = None,
    others: tuple[dict[str, Any], ...] = (),
) -> Attested:
    """Publish an index.

    Args:
        address: address of the registry
        name: name of the repository
        architectures: of the images
        tag: tag of the index; `None` for none
        docker: whether its media types are those of Docker
        artifacts: whether the attestations are artifacts with a subject
        attested: whether there are attestations
        layer: content of the only layer of each image
        others: more entries of the index
    """
    repository = f"http://{address}/v2/{name}"
    images, attestations = [], []
    for architecture in architectures:
        platform = {"os": "linux", "architecture": architecture}
        content = tar_layer(f"{name}-{architecture}") if layer is None else layer
        kind = DOCKER_MANIFEST if docker else MANIFEST
        image = push_image(repository, content, media_type=kind, config=platform)
        images.append({**image, "platform": platform, "annotations": {"org.example.team": architecture}})
        if attested:
            attestations.append(_attestation(repository, image, artifact=artifacts))
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_LIST if docker else INDEX,
        "manifests": [*images, *attestations, *others],
        "annotations": {"org.example.index": "kept"},
    }
    index = push_manifest(repository, document, tag)
    return Attested(f"{address}/{name}:{tag}", index["digest"], images, attestations)


def _attestation(repository: str, image: dict[str, Any], *, artifact: bool) -> dict[str, Any]:
    config, kind = (b"{}", _EMPTY) if artifact else (b'{"rootfs":{}}', "application/vnd.oci.image.config.v1+json")
    statement = json.dumps({"subject": image["digest"], "predicateType": PROVENANCE}).encode()
    layer = descriptor(_IN_TOTO, push_blob(repository, statement))
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(kind, push_blob(repository, config)),
        "layers": [{**layer, "annotations": {"in-toto.io/predicate-type": PROVENANCE}}],
        **({"artifactType": _ARTIFACT, "subject": image} if artifact else {}),
    }
    annotations = {
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    }
    platform = {"os": "unknown", "architecture": "unknown"}
    return {**push_manifest(repository, document), "platform": platform, "annotations": annotations}
