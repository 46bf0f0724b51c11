"""Parses the manifests that an engine lists of an image. Engines list them since API 1.48 (Docker 28). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect_docker_attest.images import documents
from prefect_docker_attest.images.documents import ImageError
from prefect_docker_attest.images.programs import UNCHECKED
from prefect_docker_attest.images.result import Image, Inspection
from prefect_docker_attest.platforms import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect_docker_attest.images.documents import Descriptor


def listed_inspection(answer: Mapping[str, Any], reference: str, engine: str) -> Inspection:
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
    attesting: list[tuple[Descriptor, str | None, tuple[str, ...]]] = []
    others: list[str] = []
    for number, entry in enumerate(_list(answer["Manifests"])):
        descriptor = documents.read_descriptor(entry.get("Descriptor"), f"{engine}: Manifests[{number}].Descriptor")
        if entry.get("Kind") == "image":
            images.append(_image(entry, descriptor))
        elif entry.get("Kind") == "attestation":
            attested = _member(entry, "AttestationData").get("For")
            attesting.append((descriptor, attested if isinstance(attested, str) else None, ()))
        else:
            others.append(descriptor.digest)
    return Inspection.of(reference, engine, root, images=images, attesting=attesting, others=others)


def _image(entry: Mapping[str, Any], descriptor: Descriptor) -> Image:
    words = map(_member(_member(entry, "ImageData"), "Platform").get, ("os", "architecture", "variant"))
    named = Platform.of_document(*(word if isinstance(word, str) else None for word in words))
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
