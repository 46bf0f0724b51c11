"""What an image is, wherever it lies: manifest or index, platforms, attestations, and whether its layers are sound."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from prefect_docker_attest import manifest
from prefect_docker_attest.layers import LayerDamaged, LayerUnverifiable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rich.progress import Progress

Descriptor = dict[str, Any]
"""A content descriptor of the OCI image specification: ``mediaType``, ``digest``, ``size``, ..."""

State = Literal["unchecked", "sound", "corrupt", "unverifiable"]

_DEEPEST = 4  # indexes in indexes; more is no image


class ImageError(Exception):
    """An image that cannot be inspected: what failed, what was seen, and what to do next."""


class Source(Protocol):
    """A place that has one image.

    Attributes:
        name: the place, for people
    """

    name: str

    def root(self) -> tuple[Descriptor, bytes]:
        """The descriptor that the image's name stands for, and what it describes."""

    def read(self, descriptor: Descriptor) -> bytes | None:
        """A manifest, an index or a config; ``None`` where this place does not have it."""

    def diff_id(self, descriptor: Descriptor, advance: Callable[[int], object]) -> str:
        """What `layers.diff_id` says of a layer, or raises."""


@dataclass(frozen=True)
class Layer:
    """A layer of an image.

    Attributes:
        diff_id: the digest of its tar, as the image's config has it
        state: whether that is true
        detail: why it is not
    """

    digest: str
    media_type: str
    size: int
    diff_id: str | None
    state: State = "unchecked"
    detail: str = ""


@dataclass(frozen=True)
class Image:
    """One platform's image.

    Attributes:
        platform: ``os/architecture``, of the index or else of the config; ``None`` where neither says
        size: bytes of config and layers, as they are stored
        layers: none, where the place does not have this platform
        state: of all layers together
        detail: why it is not sound
    """

    digest: str
    media_type: str
    platform: str | None
    size: int
    layers: tuple[Layer, ...]
    state: State
    detail: str


@dataclass(frozen=True)
class Attestation:
    """An attestation manifest.

    Attributes:
        image: the digest of the image that it speaks of, with its platform
        predicate_types: what it attests; none where the place does not have it
    """

    digest: str
    media_type: str
    size: int
    image: str | None
    platform: str | None
    predicate_types: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """All that was found.

    Attributes:
        source: the place where it was found
        media_type: of what the image's name stands for: a manifest, or an index
        others: digests of an index's entries that are neither image nor attestation
    """

    reference: str
    source: str
    digest: str
    media_type: str
    images: tuple[Image, ...]
    attestations: tuple[Attestation, ...]
    others: tuple[str, ...]

    @property
    def state(self) -> State:
        """The worst of the images' states."""
        return _worst([image.state for image in self.images])


def inspect_image(source: Source, reference: str, *, verify_layers: bool, progress: Progress) -> Inspection:
    """Inspect one image.

    Args:
        source: where the image is
        reference: the image's name, as its user wrote it
        verify_layers: read every layer, and compare it with what the config says of it
        progress: shows how far the layers are

    Raises:
        ImageError: there is no such image, or it cannot be read
    """
    root, content = source.root()
    entries = list(_leaves(source, root, content))
    described: list[tuple[Descriptor, dict[str, Any], dict[str, Any]]] = []
    attestations, others = [], []
    for descriptor, document, attests in entries:
        config = (document or {}).get("config") or {}
        if attests:
            attestations.append((descriptor, document))
        elif document is None and descriptor["mediaType"] in manifest.MANIFEST_KINDS:
            described.append((descriptor, {}, {}))
        elif document is not None and config.get("mediaType") in manifest.CONFIG_MEDIA_TYPES:
            described.append((descriptor, document, _document(source.read(config), "config") or {}))
        elif descriptor is root:
            kind = (document or {}).get("artifactType") or config.get("mediaType") or descriptor["mediaType"]
            raise ImageError(f"{reference} is not a container image: it is a {kind}.")
        else:
            others.append(descriptor["digest"])
    check = _checker(source, [document for _, document, _ in described], progress) if verify_layers else None
    images = tuple(_image(descriptor, document, config, check) for descriptor, document, config in described)
    platforms = {image.digest: image.platform for image in images}
    return Inspection(
        reference,
        source.name,
        root["digest"],
        root["mediaType"],
        images,
        tuple(_attestation(descriptor, document, platforms) for descriptor, document in attestations),
        tuple(others),
    )


def republishing(inspection: Inspection, name: str, tag: str, *, prefer_index_flag: bool) -> str:
    """The shell command that gives a tag to an image's manifests alone: one plain manifest, or an index without attestations.

    Args:
        inspection: of an image in a registry
        name: the image's name, without tag and digest
        tag: the tag
        prefer_index_flag: whether buildx can copy a single manifest; without ``--prefer-index=false``, which came with
            0.15, ``imagetools create`` wraps it into an index again
    """
    images = [f"{name}@{image.digest}" for image in inspection.images]
    create = ["docker", "buildx", "imagetools", "create"]
    if len(images) > 1:
        return shlex.join([*create, f"--tag={name}:{tag}", *images])
    if prefer_index_flag:
        return shlex.join([*create, "--prefer-index=false", f"--tag={name}:{tag}", *images])
    target = f"{name}:{tag}"
    steps = (["docker", "pull", *images], ["docker", "tag", *images, target], ["docker", "push", target])
    return " && ".join(map(shlex.join, steps))


def _worst(states: list[State]) -> State:
    order: tuple[State, ...] = ("corrupt", "unverifiable", "unchecked", "sound")
    return min(states, key=order.index, default="unchecked")


def _document(content: bytes | None, what: str) -> dict[str, Any] | None:
    if content is None:
        return None
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ImageError(f"the {what} is no JSON object; it starts with {content[:40]!r}.")
    return document


def _leaves(
    source: Source, descriptor: Descriptor, content: bytes | None, depth: int = 0
) -> Iterator[tuple[Descriptor, dict[str, Any] | None, bool]]:
    """What is not an index, with its document, and whether an index says that it is an attestation."""
    document = _document(content, "manifest")
    if not manifest.is_index(descriptor["mediaType"]):
        yield descriptor, document, False
        return
    if depth == _DEEPEST:
        raise ImageError(f"indexes are nested more than {_DEEPEST} deep, at {descriptor['digest']}.")
    marked = manifest.attestations(document or {})
    for entry in (document or {}).get("manifests") or ():
        known = manifest.is_index(entry["mediaType"]) or entry["mediaType"] in manifest.MANIFEST_KINDS
        if entry in marked:
            yield entry, _document(source.read(entry), "attestation manifest"), True
        elif known:
            yield from _leaves(source, entry, source.read(entry), depth + 1)
        else:
            yield entry, None, False


def _attestation(
    descriptor: Descriptor, document: Mapping[str, Any] | None, platforms: Mapping[str, str | None]
) -> Attestation:
    image = manifest.attested_image(descriptor)
    size = sum(layer["size"] for layer in (document or {}).get("layers", ()))
    types = manifest.predicate_types(document) if document else ()
    return Attestation(
        descriptor["digest"], descriptor["mediaType"], size, image, platforms.get(image or ""), tuple(types)
    )


def _image(
    descriptor: Descriptor,
    document: Mapping[str, Any],
    config: Mapping[str, Any],
    check: Callable[[Descriptor, str | None], Layer] | None,
) -> Image:
    described = document.get("layers") or []
    diff_ids = (config.get("rootfs") or {}).get("diff_ids") or []
    layers = tuple(
        check(layer, expected) if check else Layer(layer["digest"], layer["mediaType"], layer["size"], expected)
        for layer, expected in zip(described, [*diff_ids, *[None] * len(described)], strict=False)
    )
    state = _worst([layer.state for layer in layers])
    detail = "; ".join(f"layer {number}: {layer.detail}" for number, layer in enumerate(layers, 1) if layer.detail)
    if not document:
        state, detail = "unverifiable", "it is not in this engine"
    elif len(described) != len(diff_ids):
        state, detail = "corrupt", f"the manifest has {len(described)} layers, and the config {len(diff_ids)} diff_ids"
    return Image(
        descriptor["digest"],
        descriptor["mediaType"],
        manifest.platform_name(descriptor.get("platform")) or manifest.platform_name(config),
        sum(blob["size"] for blob in (document.get("config"), *described) if blob),
        layers,
        state,
        detail,
    )


def _checker(
    source: Source, documents: list[dict[str, Any]], progress: Progress
) -> Callable[[Descriptor, str | None], Layer]:
    """A function that verifies a layer; one that several platforms share is read once."""
    sizes = {layer["digest"]: layer["size"] for document in documents for layer in document.get("layers", ())}
    task = progress.add_task(source.name, total=sum(sizes.values()))
    seen: dict[str, str | Exception] = {}

    def advance(count: int) -> None:
        progress.advance(task, count)

    def check(layer: Descriptor, expected: str | None) -> Layer:
        digest = layer["digest"]
        if digest not in seen:
            try:
                seen[digest] = source.diff_id(layer, advance)
            except (LayerDamaged, LayerUnverifiable) as reason:
                seen[digest] = reason
        found = seen[digest]
        state: State = "sound"
        detail = ""
        if isinstance(found, Exception):
            state, detail = "corrupt" if isinstance(found, LayerDamaged) else "unverifiable", f"{digest}: {found}"
        elif found != expected:
            state, detail = "corrupt", f"its content is {found}, where the config says {expected}"
        return Layer(digest, layer["mediaType"], layer["size"], expected, state, detail)

    return check
