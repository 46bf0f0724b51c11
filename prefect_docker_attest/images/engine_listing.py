"""Parses the manifests that an engine lists of an image. Engines list them since API 1.48 (Docker 28). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect_docker_attest.images import documents, manifest
from prefect_docker_attest.images.documents import ImageError
from prefect_docker_attest.images.programs import UNCHECKED
from prefect_docker_attest.images.result import Attestation, Image, Inspection, worst

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect_docker_attest.images.documents import Descriptor


def inspection(answer: Mapping[str, Any], reference: str, engine: str) -> Inspection:
    """Convert the response to ``GET /images/NAME/json?manifests=1``.

    The response has neither layers nor predicate types of attestations.

    Args:
        answer: the response; it has the member ``Manifests``
        reference: name of the image, as the user wrote it
        engine: name of the engine in messages

    Raises:
        ImageError: the response has an unknown form, or lists no container image
    """
    root = documents.read_descriptor(answer.get("Descriptor"), f"{engine}: Descriptor")
    images: list[Image] = []
    attesting: list[tuple[Descriptor, str | None]] = []
    others: list[str] = []
    for number, entry in enumerate(_list(answer["Manifests"])):
        descriptor = documents.read_descriptor(entry.get("Descriptor"), f"{engine}: Manifests[{number}].Descriptor")
        if entry.get("Kind") == "image":
            images.append(_image(entry, descriptor))
        elif entry.get("Kind") == "attestation":
            attested = _member(entry, "AttestationData").get("For")
            attesting.append((descriptor, attested if isinstance(attested, str) else None))
        else:
            others.append(descriptor.digest)
    if not images:
        raise ImageError(f"{reference} is an index that lists no container image.")
    platforms = {image.digest: image.platform for image in images}
    attestations = tuple(
        Attestation(descriptor.digest, descriptor.media_type, attested, platforms.get(attested or ""), ())
        for descriptor, attested in attesting
    )
    state = worst([image.state for image in images])
    return Inspection(
        reference, engine, root.digest, root.media_type, tuple(images), attestations, tuple(others), state
    )


def _image(entry: Mapping[str, Any], descriptor: Descriptor) -> Image:
    platform = _member(_member(entry, "ImageData"), "Platform")
    named = manifest.platform_name({name: text for name, text in platform.items() if isinstance(text, str)})
    content = _member(entry, "Size").get("Content")
    size = content - descriptor.size if isinstance(content, int) else 0
    here = entry.get("Available") is True
    return Image(
        descriptor.digest,
        descriptor.media_type,
        descriptor.platform or named,
        max(size, 0),
        (),
        "unchecked" if here else "unverifiable",
        "" if here else "the engine does not have this image",
        UNCHECKED,
    )


def _member(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = entry.get(name)
    return found if isinstance(found, dict) else {}


def _list(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ImageError("The engine's list of manifests cannot be read.")
    return value
